"""SE2D (Michel et al., CVPR 2026): the student's own past on images from outside."""

import torch
from torch import Tensor

from cdl.distillers.base import DistillerContext
from cdl.distillers.lwf import Past, masked_mean, row_divergence


class SE2D(Past):
    """A soft loss with the teacher, and one with the student's past on unlabelled images.

    The images from outside are those without a label: of the task or, with `unlabelled`, of another
    source. The mean is over these images, so that their number has no weight. By default labels are
    not used.
    """

    def __init__(
        self,
        context: DistillerContext,
        *,
        alpha: float = 1.0,
        temperature: float = 10.0,
        past_weight: float = 1.0,
        self_distillation: bool = False,
        standardize: bool = False,
        soft_weight: float | None = None,
        confidence: float | None = None,
    ) -> None:
        """Set the weights; the other options are those of `KD`.

        Args:
            context: the two models.
            standardize: see `KD`.
            soft_weight: see `KD`.
            confidence: see `KD`.
            alpha: weight of the teacher's soft loss, as in `KD`; 1 leaves out cross-entropy.
            temperature: of teacher and past.
            past_weight: weight of the loss with the past.
            self_distillation: whether the loss with the past is over all images.
        """
        super().__init__(
            context,
            alpha=alpha,
            temperature=temperature,
            standardize=standardize,
            soft_weight=soft_weight,
            confidence=confidence,
        )
        self.past_weight, self.everywhere = past_weight, self_distillation

    def past_loss(self, student: Tensor, past: Tensor, labelled: int) -> Tensor:
        outside = torch.arange(len(student), device=student.device) >= labelled
        return self.past_term(student, past, outside)

    def past_term(self, student: Tensor, past: Tensor, outside: Tensor) -> Tensor:
        """Return the loss with the past, of logits `[B, C]` and a mask `[B]` of images."""
        known = student[:, : past.shape[1]]
        rows = torch.ones_like(outside) if self.everywhere else outside
        return masked_mean(row_divergence(known, past, self.temperature), rows)
