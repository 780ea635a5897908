"""Decoupled knowledge distillation (Zhao et al., CVPR 2022)."""

from typing import Unpack

import torch
from torch import Tensor
from torch.nn import functional as F

from cdl.distillers.base import DistillerContext, TeacherOutput
from cdl.distillers.kd import KD, SoftWeights
from cdl.runtime.errors import CdlError


def dkd_terms(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Return TCKD and NCKD of logits `[B, C]`, both multiplied by `tau^2`, batch mean.

    TCKD compares the probabilities of target and non-target, NCKD the distributions over the
    non-target classes; with two classes NCKD is 0; one class is an error.
    `KD = TCKD + (1 - p_target) NCKD` for each sample.
    """
    target = labels[:, None]
    columns = torch.arange(student.shape[1] - 1, device=labels.device)
    rest = columns + (columns >= target)  # [B, C-1], all columns but the target

    def parts(logits: Tensor) -> tuple[Tensor, Tensor]:
        log_p = F.log_softmax(logits / temperature, dim=1)
        others = log_p.gather(1, rest)
        binary = torch.cat([log_p.gather(1, target), others.logsumexp(1, keepdim=True)], dim=1)
        return binary, F.log_softmax(others, dim=1)

    (binary_s, others_s), (binary_t, others_t) = parts(student), parts(teacher)
    tckd = F.kl_div(binary_s, binary_t, reduction="batchmean", log_target=True)
    nckd = F.kl_div(others_s, others_t, reduction="batchmean", log_target=True)
    return temperature**2 * tckd, temperature**2 * nckd


class DKD(KD):
    """`TCKD + beta NCKD` instead of the KL divergence of softened logits."""

    def __init__(
        self,
        context: DistillerContext,
        *,
        temperature: float = 4.0,
        target_weight: float = 1.0,
        non_target_weight: float = 4.0,
        **soft: Unpack[SoftWeights],
    ) -> None:
        """Set the weights of the terms; `temperature` and `soft` are those of `KD`."""
        super().__init__(context, temperature=temperature, **soft)
        self.target_weight, self.non_target_weight = target_weight, non_target_weight

    def soft_loss(self, student: Tensor, teacher_output: TeacherOutput, labels: Tensor) -> Tensor:
        if student.shape[1] < 2:
            raise CdlError(
                "distillers.dkd: a task has one class; expected at least two classes in every task"
            )
        tckd, nckd = dkd_terms(student, teacher_output.logits, labels, self.temperature)
        return self.target_weight * tckd + self.non_target_weight * nckd
