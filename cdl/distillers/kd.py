"""Knowledge distillation by softened logits (Hinton, Vinyals and Dean, 2015)."""

from dataclasses import replace
from typing import TypedDict

import torch
from torch import Tensor
from torch.nn import functional as F

from cdl.distillers.base import Distiller, DistillerContext, Output, TeacherOutput
from cdl.runtime.errors import CdlError


class SoftWeights(TypedDict, total=False):
    """Options of every distiller with a soft loss but its temperature, see `KD`."""

    alpha: float
    standardize: bool
    soft_weight: float | None
    confidence: float | None


class SoftOptions(SoftWeights, total=False):
    """Options of every distiller with a soft loss, see `KD`."""

    temperature: float


def kd_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return `tau^2 KL(teacher || student)` of softened logits `[B, C_t]`, batch mean."""
    kl = F.kl_div(
        F.log_softmax(student / temperature, dim=1),
        F.log_softmax(teacher / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return temperature**2 * kl


def standardised(logits: Tensor) -> Tensor:
    """Return z-scores of each row of `[B, C_t]` (logit standardisation, Sun et al., CVPR 2024).

    Raises:
        CdlError: with fewer than three columns a z-score says nothing but which is larger.
    """
    if logits.shape[1] < 3:
        raise CdlError(
            f"distillers.standardize: a task of {logits.shape[1]} classes has constant "
            "z-scores; needed are three classes or more in every task"
        )
    centred = logits - logits.mean(1, keepdim=True)
    return centred / (1e-7 + logits.std(1, keepdim=True))


def unsure_rows(logits: Tensor, confidence: float) -> Tensor:
    """Return where no probability of logits `[B, C_t]` exceeds the confidence, `[B, 1]` bool."""
    return logits.softmax(1).amax(1, keepdim=True) <= confidence


class KD(Distiller):
    """The class head learns labels and the teacher's logits."""

    def __init__(
        self,
        context: DistillerContext,
        *,
        alpha: float = 0.5,
        temperature: float = 2.0,
        standardize: bool = False,
        soft_weight: float | None = None,
        confidence: float | None = None,
    ) -> None:
        """Set what the soft loss is.

        Args:
            context: the two models.
            alpha: cross-entropy weighs `1 - alpha`, the soft loss `alpha`.
            temperature: of the soft loss.
            standardize: whether it compares z-scores of both models' logits.
            soft_weight: its weight where that is not `alpha`.
            confidence: the teacher's largest probability over which an image counts in it.
        """
        super().__init__()
        self.confidence = confidence
        self.alpha, self.temperature, self.standardize = alpha, temperature, standardize
        self.soft_weight = alpha if soft_weight is None else soft_weight

    def soft_logits(self, output: Output) -> Tensor:
        """Return the logits `[B, C]` that learn from the teacher."""
        return output.logits

    def soft_loss(self, student: Tensor, teacher_output: TeacherOutput, labels: Tensor) -> Tensor:
        """Return the soft loss of logits `[B, C_t]`.

        Labels `[B]` count from the task's first class; an image without one has the class that
        the teacher finds likeliest.
        """
        return kd_loss(student, teacher_output.logits, self.temperature)

    def forward(
        self, output: Output, teacher_output: TeacherOutput | None, labels: Tensor, classes: slice
    ) -> dict[str, Tensor]:
        assert teacher_output is not None
        losses = super().forward(output, teacher_output, labels, classes)
        student, teacher = self.soft_logits(output)[:, classes], teacher_output.logits
        targets = torch.cat([labels - classes.start, teacher[len(labels) :].argmax(1)])
        unsure = None if self.confidence is None else unsure_rows(teacher, self.confidence)
        if self.standardize:
            student, teacher = standardised(student), standardised(teacher)
            teacher_output = replace(teacher_output, logits=teacher)
        if unsure is not None:  # what agrees with the teacher costs nothing, and the shape stays
            student = torch.where(unsure, teacher, student)
        losses["soft"] = self.soft_weight * self.soft_loss(student, teacher_output, targets)
        return losses
