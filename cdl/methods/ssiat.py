"""SSIAT (Tan et al., CVPR 2024): one set of adapters tuned on, with a cosine head."""

import torch

from cdl.methods.adapter import SharedAdapter
from cdl.methods.base import PromptContext
from cdl.methods.heads import CosineHead, Head


class SSIAT(SharedAdapter):
    """Shared adapters and a cosine head with a margin.

    The shift of the means of earlier classes and the training of the head on sampled features are
    the classifier alignment of the run: `alignment`.
    """

    def __init__(
        self,
        context: PromptContext,
        *,
        bottleneck: int = 64,
        scale: float = 0.1,
        dropout: float = 0.1,
        logit_scale: float = 20.0,
        margin: float = 0.0,
    ) -> None:
        """Draw the adapters.

        Args:
            context: the backbone.
            bottleneck: see `cdl.methods.adapters`.
            scale: see `cdl.methods.adapters`.
            dropout: see `cdl.methods.adapters`.
            logit_scale: factor `s` of the cosines, also of a teacher's.
            margin: `m`: cross-entropy reads `s (cos - m)` for the label.
        """
        super().__init__(context, bottleneck=bottleneck, scale=scale, dropout=dropout)
        self.logit_scale, self.margin = logit_scale, margin

    def make_head(self, width: int, n_classes: int, generator: torch.Generator) -> Head:
        how = {"scale": self.logit_scale, "margin": self.margin}
        return CosineHead(width, n_classes, generator, **how)  # type: ignore[arg-type]
