"""RanPAC (McDonnell et al., NeurIPS 2023), second phase: ridge on random features."""

import torch
from torch import Tensor

from cdl.methods.base import PromptContext, PromptMethod, Prompts
from cdl.methods.heads import Head, PrototypeHead


class RanPAC(PromptMethod):
    """No prompts and no gradient steps: the head's weights solve a linear system.

    The solver is in `cdl.training.ranpac`. The tokens are those of the unprompted backbone.
    """

    def __init__(
        self, context: PromptContext, *, projection: int | None = 10_000, prototypes: str = "ridge"
    ) -> None:
        """Store the options of the head.

        Args:
            context: the backbone.
            projection: width `M` of the random features; None uses the class token itself.
            prototypes: `ridge`, or `mean`: the nearest class mean by cosine similarity.
        """
        super().__init__()
        self.projection, self.prototypes = projection, prototypes

    def make_head(self, width: int, n_classes: int, generator: torch.Generator) -> Head:
        return PrototypeHead(width, n_classes, generator, self.projection, self.prototypes)

    def forward(self, query: Tensor | None, task: int) -> Prompts:
        return Prompts()
