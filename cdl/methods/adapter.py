"""Adapters beside the MLP, trained by all tasks: a plain baseline."""

from torch import Tensor

from cdl.methods.adapters import Adapters
from cdl.methods.base import PromptContext, PromptMethod, Prompts


class SharedAdapter(PromptMethod):
    """One adapter per block with a linear head, with no protection of earlier tasks."""

    def __init__(
        self,
        context: PromptContext,
        *,
        bottleneck: int = 64,
        scale: float = 0.1,
        dropout: float = 0.1,
    ) -> None:
        """Draw the adapters; the options are those of `Adapters`."""
        super().__init__()
        self.adapters = Adapters(
            context.width,
            context.depth,
            context.generator,
            bottleneck=bottleneck,
            scale=scale,
            dropout=dropout,
        )

    def forward(self, query: Tensor | None, task: int) -> Prompts:
        return Prompts(inside=(self.adapters.inside(),))
