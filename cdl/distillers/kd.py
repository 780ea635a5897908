"""Knowledge distillation by softened logits (Hinton, Vinyals and Dean, 2015)."""

from dataclasses import replace
from typing import TypedDict

from torch import Tensor
from torch.nn import functional as F

from cdl.distillers.base import Distiller, DistillerContext, Output, TeacherOutput
from cdl.runtime.errors import CdlError


class SoftOptions(TypedDict, total=False):
    """What every distiller with a soft loss can be told, see `KD`."""

    alpha: float
    temperature: float
    standardize: bool
    soft_weight: float | None


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
    ) -> None:
        """Set what the soft loss is.

        Args:
            context: the two models.
            alpha: cross-entropy weighs `1 - alpha`, the soft loss `alpha`.
            temperature: of the soft loss.
            standardize: whether it compares z-scores of both models' logits.
            soft_weight: its weight where that is not `alpha`.
        """
        super().__init__()
        self.alpha, self.temperature, self.standardize = alpha, temperature, standardize
        self.soft_weight = alpha if soft_weight is None else soft_weight

    def soft_logits(self, output: Output) -> Tensor:
        """Return the logits `[B, C]` that learn from the teacher."""
        return output.logits

    def soft_loss(self, student: Tensor, teacher_output: TeacherOutput, labels: Tensor) -> Tensor:
        """Return the soft loss of logits `[B, C_t]`; labels count from the task's first class."""
        return kd_loss(student, teacher_output.logits, self.temperature)

    def forward(
        self, output: Output, teacher_output: TeacherOutput | None, labels: Tensor, classes: slice
    ) -> dict[str, Tensor]:
        assert teacher_output is not None
        losses = super().forward(output, teacher_output, labels, classes)
        student = self.soft_logits(output)[:, classes]
        if self.standardize:
            student = standardised(student)
            teacher_output = replace(teacher_output, logits=standardised(teacher_output.logits))
        losses["soft"] = self.soft_weight * self.soft_loss(
            student, teacher_output, labels - classes.start
        )
        return losses
