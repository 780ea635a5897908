"""SE2D (Michel et al., CVPR 2026): the student's own past on images from outside."""

from typing import Unpack

import torch
from torch import Tensor
from torch.nn import functional as F

from cdl.distillers.base import DistillerContext
from cdl.distillers.kd import SoftChoices
from cdl.distillers.lwf import Past


def row_divergence(student: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Return `tau^2 KL(target || student)` of softened logits `[B, C]`, one value per row."""
    logs, targets = (F.log_softmax(x / temperature, dim=1) for x in (student, target))
    divergence: Tensor = temperature**2 * (targets.exp() * (targets - logs)).sum(1)
    return divergence


def masked_mean(values: Tensor, rows: Tensor) -> Tensor:
    """Return the mean of values `[B]` over the rows with a mask of 1; 0 without any."""
    weights = rows.to(values.dtype)
    return (values * weights).sum() / torch.clamp(weights.sum(), min=1)


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
        **soft: Unpack[SoftChoices],
    ) -> None:
        """Set the weights.

        Args:
            context: the two models.
            alpha: weight of the teacher's soft loss, as in `KD`; 1 leaves out cross-entropy.
            temperature: of teacher and past.
            past_weight: weight of the loss with the past.
            self_distillation: whether the loss with the past is over all images.
            soft: as in `KD`.
        """
        super().__init__(context, alpha=alpha, temperature=temperature, **soft)
        self.past_weight, self.everywhere = past_weight, self_distillation

    def past_loss(self, student: Tensor, past: Tensor, labelled: int) -> Tensor:
        outside = torch.arange(len(student), device=student.device) >= labelled
        return self.past_term(student, past, outside)

    def past_term(self, student: Tensor, past: Tensor, outside: Tensor) -> Tensor:
        """Return the loss with the past, of logits `[B, C]` and a mask `[B]` of images."""
        known = student[:, : past.shape[1]]
        rows = torch.ones_like(outside) if self.everywhere else outside
        return masked_mean(row_divergence(known, past, self.temperature), rows)
