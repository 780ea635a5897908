"""LoRA (Hu et al., ICLR 2022): one low-rank branch per projection, trained by all tasks."""

import torch
from torch import Tensor, nn

from cdl.methods.base import PromptContext, PromptMethod, Prompts
from cdl.methods.low_rank import branches, draw_down


class LoRA(PromptMethod):
    """`q + up down a` in every block, likewise for the other parts; a plain baseline.

    All tasks train the same branches, with no protection of earlier tasks.
    """

    def __init__(self, context: PromptContext, *, rank: int = 10, parts: str = "qv") -> None:
        """Draw `down` uniform on +-1/sqrt(D); `up` starts at 0.

        Args:
            context: the backbone.
            rank: rank `r` of a branch.
            parts: projections with a branch: letters of `q`, `k` and `v`.
        """
        super().__init__()
        self.parts = tuple(parts)
        n, depth, width = len(parts), context.depth, context.width
        self.down = nn.Parameter(draw_down(n, depth, rank, width, source=context.generator))
        self.up = nn.Parameter(torch.zeros(n, depth, width, rank))

    def forward(self, query: Tensor | None, task: int) -> Prompts:
        return Prompts(inside=(branches(self.parts, self.down, self.up),))
