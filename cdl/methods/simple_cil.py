"""SimpleCIL (Zhou et al., IJCV 2024): the nearest class mean of the frozen features."""

import torch
from torch import Tensor

from cdl.methods.base import PromptContext, PromptMethod, Prompts
from cdl.methods.heads import Head, PrototypeHead


class SimpleCIL(PromptMethod):
    """Nothing is trained: the rows of a cosine head are means of raw features."""

    def __init__(
        self,
        context: PromptContext,
        *,
        logit_scale: float = 20.0,
        labels: str | None = None,
        label_classes: str = "task",
    ) -> None:
        """Store the options.

        Args:
            context: the backbone.
            logit_scale: factor of the cosines, which does not change the predicted class.
            labels: classes of images without a label, see `cdl.training.labelling`.
            label_classes: among which `labels` chooses.
        """
        super().__init__()
        self.logit_scale, self.labels, self.label_classes = logit_scale, labels, label_classes

    def make_head(self, width: int, n_classes: int, generator: torch.Generator) -> Head:
        scale = self.logit_scale
        return PrototypeHead(
            width, n_classes, generator, None, "mean", scale=scale, keeps_gram=False
        )

    def forward(self, query: Tensor | None, task: int) -> Prompts:
        return Prompts()
