"""APER (Zhou et al., IJCV 2024): class means of frozen and of tuned features together."""

import torch
from torch import Tensor

from cdl.backbones.inside import CLOSED
from cdl.methods.base import PromptContext, Prompts
from cdl.methods.first_session import FirstSession, make_module
from cdl.methods.heads import Head, PrototypeHead


class APER(FirstSession):
    """A module tuned in task 0; then the features of two passes, plain and tuned, side by side.

    Neither half is normalised by itself. Prediction needs two passes.
    """

    def __init__(
        self,
        context: PromptContext,
        *,
        module: str = "adapter",
        bottleneck: int = 64,
        scale: float = 0.1,
        dropout: float = 0.1,
        tokens: int = 5,
        logit_scale: float = 20.0,
    ) -> None:
        """Draw the module.

        Args:
            context: the backbone.
            module: `adapter`, `ssf` or `vpt`.
            bottleneck: see `cdl.methods.adapters`.
            scale: see `cdl.methods.adapters`.
            dropout: see `cdl.methods.adapters`.
            tokens: tokens per block of `vpt`.
            logit_scale: factor of the cosines.
        """
        super().__init__()
        self.logit_scale = logit_scale
        self.module = make_module(
            module,
            context,
            bottleneck=bottleneck,
            scale=scale,
            dropout=dropout,
            tokens=tokens,
        )

    def make_head(self, width: int, n_classes: int, generator: torch.Generator) -> Head:
        scale = self.logit_scale
        return PrototypeHead(
            2 * width, n_classes, generator, None, "mean", scale=scale, keeps_gram=False
        )

    def forward(self, query: Tensor | None, task: int) -> Prompts:
        assert self.module is not None
        tuned = self.module.inside()
        return Prompts(inside=(tuned,) if self.training else (CLOSED, tuned))
