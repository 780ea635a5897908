"""SimpleCIL (Zhou et al., IJCV 2024): the nearest class mean of the frozen features."""

import torch
from torch import Tensor

from cdl.methods.base import PromptContext, PromptMethod, Prompts
from cdl.methods.heads import Head, PrototypeHead


class SimpleCIL(PromptMethod):
    """Nothing is trained: the rows of a cosine head are means of raw features."""

    def __init__(self, context: PromptContext, *, logit_scale: float = 20.0) -> None:
        """Store the factor of the cosines, which does not change the predicted class."""
        super().__init__()
        self.logit_scale = logit_scale

    def make_head(self, width: int, n_classes: int, generator: torch.Generator) -> Head:
        scale = self.logit_scale
        return PrototypeHead(
            width, n_classes, generator, None, "mean", scale=scale, keeps_gram=False
        )

    def forward(self, query: Tensor | None, task: int) -> Prompts:
        return Prompts()
