"""RanPAC (McDonnell et al., NeurIPS 2023), its second phase: a ridge on frozen random features."""

import torch
from torch import Tensor

from cdl.methods.base import PromptContext, PromptMethod, Prompts
from cdl.methods.heads import Head, PrototypeHead


class RanPAC(PromptMethod):
    """No prompts and no gradient step: the head's weights are solved for, task by task.

    `cdl.training.ranpac` solves them. Tokens are the frozen backbone's own.
    """

    def __init__(
        self, context: PromptContext, *, projection: int | None = 10_000, prototypes: str = "ridge"
    ) -> None:
        """Set what the head is.

        Args:
            context: the backbone.
            projection: width `M` of the random features; None takes the class token itself.
            prototypes: `ridge`, or `mean`: the nearest class mean by cosine.
        """
        super().__init__()
        self.projection, self.prototypes = projection, prototypes

    def make_head(self, width: int, n_classes: int, generator: torch.Generator) -> Head:
        return PrototypeHead(width, n_classes, generator, self.projection, self.prototypes)

    def forward(self, query: Tensor | None, task: int) -> Prompts:
        return Prompts()
