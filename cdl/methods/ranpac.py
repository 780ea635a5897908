"""RanPAC (McDonnell et al., NeurIPS 2023): ridge on random features.

With a first session (phase 1) a module is tuned in task 0; without it the backbone is frozen.
"""

import torch

from cdl.methods.base import PromptContext
from cdl.methods.first_session import FirstSession, make_module
from cdl.methods.heads import Head, PrototypeHead


class RanPAC(FirstSession):
    """The head's weights solve a linear system; the solver is in `cdl.training.solving`."""

    def __init__(
        self,
        context: PromptContext,
        *,
        projection: int | None = 10_000,
        prototypes: str = "ridge",
        first_session: str | None = None,
        bottleneck: int = 64,
        scale: float = 0.1,
        dropout: float = 0.1,
        tokens: int = 5,
        logit_scale: float = 1.0,
        ridge_images: str = "last",
        as_released: bool = False,
        labels: str | None = None,
        label_classes: str = "task",
    ) -> None:
        """Draw the module of the first session and store the options of the head.

        Args:
            context: the backbone.
            projection: width `M` of the random features; None uses the class token itself.
            prototypes: `ridge`, or `mean`: the nearest class mean by cosine similarity.
            first_session: `adapter`, `ssf` or `vpt`; None trains nothing.
            bottleneck: see `cdl.methods.adapters`.
            scale: see `cdl.methods.adapters`.
            dropout: see `cdl.methods.adapters`.
            tokens: tokens per block of `vpt`.
            logit_scale: factor of the logits. With a first session, `mean` uses the scale that
                the session has learnt instead.
            ridge_images: validation images that choose the ridge, see `cdl.training.ranpac`.
            as_released: whether the logits of `ridge` are cosines with the weights, as in PILOT's
                port of RanPAC.
            labels: classes of images without a label, see `cdl.training.labelling`.
            label_classes: among which `labels` chooses.
        """
        super().__init__()
        self.projection, self.prototypes = projection, prototypes
        self.logit_scale, self.as_released = logit_scale, as_released
        self.ridge_images, self.labels, self.label_classes = ridge_images, labels, label_classes
        if first_session is not None:
            self.module = make_module(
                first_session,
                context,
                bottleneck=bottleneck,
                scale=scale,
                dropout=dropout,
                tokens=tokens,
            )

    def make_head(self, width: int, n_classes: int, generator: torch.Generator) -> Head:
        return PrototypeHead(
            width,
            n_classes,
            generator,
            self.projection,
            self.prototypes,
            scale=self.logit_scale,
            learnt_scale=self.module is not None and self.prototypes == "mean",
            cosine_ridge=self.as_released,
            ridge_images=self.ridge_images,
        )
