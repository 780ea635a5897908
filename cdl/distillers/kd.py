"""Knowledge distillation by softened logits (Hinton, Vinyals and Dean, 2015)."""

from dataclasses import replace
from typing import Unpack

import torch
from torch import Tensor
from torch.nn import functional as F

from cdl.distillers.base import (
    Distiller,
    DistillerContext,
    LabelOptions,
    Output,
    TeacherOutput,
)
from cdl.runtime.errors import CdlError


class SoftChoices(LabelOptions, total=False):
    """Options shared by all distillers with a soft loss, without its weight and temperature."""

    standardize: bool
    soft_weight: float | None
    confidence: float | None


class SoftWeights(SoftChoices, total=False):
    """Options shared by all distillers with a soft loss, without the temperature."""

    alpha: float


class SoftOptions(SoftWeights, total=False):
    """Options shared by all distillers with a soft loss, see `KD`."""

    temperature: float


class ColumnOptions(SoftOptions, total=False):
    """Options of distillers whose soft loss may include earlier classes, see `ColumnsKD`."""

    soft_columns: str


_SURE = 100.0  # logit of a class of which nothing else is probable


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
    """Return z-scores of each row of `[B, C_t]`.

    This is the logit standardisation of Sun et al. (CVPR 2024).

    Raises:
        CdlError: there are fewer than three columns; z-scores of two values are constant.
    """
    if logits.shape[1] < 3:
        raise CdlError(
            f"distillers.standardize: a task has {logits.shape[1]} classes, so its z-scores are "
            "constant; expected at least three classes in every task"
        )
    centred = logits - logits.mean(1, keepdim=True)
    return centred / (1e-7 + logits.std(1, keepdim=True))


def unsure_rows(logits: Tensor, confidence: float) -> Tensor:
    """Return a mask `[B, 1]` of rows without a probability above `confidence`."""
    return logits.softmax(1).amax(1, keepdim=True) <= confidence


def without_gaps(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return a mask `[B, 1]` of rows without an answer, and logits that are sure of a class there.

    Equal rows that are sure have no loss, also as hard targets.
    """
    gaps = logits.isnan().any(1, keepdim=True)
    sure = torch.zeros_like(logits[:1])
    sure[:, 0] = _SURE
    return gaps, torch.where(gaps, sure, logits)


class KD(Distiller):
    """The class head is trained with labels and with the teacher's logits."""

    def __init__(
        self,
        context: DistillerContext,
        *,
        alpha: float = 0.5,
        temperature: float = 2.0,
        standardize: bool = False,
        soft_weight: float | None = None,
        confidence: float | None = None,
        **labels: Unpack[LabelOptions],
    ) -> None:
        """Set the options of the soft loss.

        Args:
            context: the two models.
            alpha: weight of the soft loss by default; cross-entropy has the weight `1 - alpha`.
            temperature: temperature of the soft loss.
            standardize: whether the soft loss compares z-scores of both models' logits.
            soft_weight: another weight of the soft loss; None uses `alpha`.
            confidence: the soft loss includes only images with a teacher probability above this
                value; None includes all images.
            labels: as in `Distiller`.
        """
        super().__init__(**labels)
        self.confidence = confidence
        self.alpha, self.temperature, self.standardize = alpha, temperature, standardize
        self.soft_weight = alpha if soft_weight is None else soft_weight

    def soft_logits(self, output: Output) -> Tensor:
        """Return the logits `[B, C]` that are compared with the teacher's."""
        return output.logits

    def columns(self, classes: slice) -> slice:
        """Return the columns that are compared, given those of the current task."""
        return classes

    def soft_loss(self, student: Tensor, teacher_output: TeacherOutput, labels: Tensor) -> Tensor:
        """Return the soft loss of logits `[B, C_t]`.

        Labels `[B]` count from the first of `columns`; an unlabelled image has the teacher's most
        likely class.
        """
        return kd_loss(student, teacher_output.logits, self.temperature)

    def forward(
        self, output: Output, teacher_output: TeacherOutput | None, labels: Tensor, classes: slice
    ) -> dict[str, Tensor]:
        assert teacher_output is not None
        losses = super().forward(output, teacher_output, labels, classes)
        columns = self.columns(classes)
        student = self.soft_logits(output)[:, columns]
        left_out, teacher = without_gaps(teacher_output.logits)
        targets = torch.cat([labels - columns.start, teacher[len(labels) :].argmax(1)])
        if self.confidence is not None:
            left_out = left_out | unsure_rows(teacher, self.confidence)
        if self.standardize:
            student, teacher = standardised(student), standardised(teacher)
        student = torch.where(left_out, teacher, student)  # equal: no loss; the shape is fixed
        teacher_output = replace(teacher_output, logits=teacher)
        losses["soft"] = self.soft_weight * self.soft_loss(student, teacher_output, targets)
        return losses


class ColumnsKD(KD):
    """A soft loss over the classes of the current task, or of all tasks seen so far."""

    def __init__(
        self, context: DistillerContext, *, soft_columns: str = "task", **soft: Unpack[SoftOptions]
    ) -> None:
        """Set the columns.

        Args:
            context: the two models.
            soft_columns: `task`, as in the released code, or `seen`: the teacher's logits of all
                classes seen so far; the columns of cross-entropy are `label_columns`.
            soft: as in `KD`.
        """
        super().__init__(context, **soft)
        self.seen = soft_columns == "seen"

    def columns(self, classes: slice) -> slice:
        return slice(0, classes.stop) if self.seen else classes


class SoftOrHardKD(ColumnsKD):
    """The distiller `kd`, whose targets may be the teacher's most likely classes instead."""

    def __init__(
        self, context: DistillerContext, *, targets: str = "soft", **soft: Unpack[ColumnOptions]
    ) -> None:
        """Set the targets.

        Args:
            context: the two models.
            targets: `soft`, or `hard`: the soft loss is the cross-entropy with the teacher's most
                likely class, for images with and without a label; the temperature is not used.
            soft: as in `ColumnsKD`.
        """
        super().__init__(context, **soft)
        self.hard = targets == "hard"

    def soft_loss(self, student: Tensor, teacher_output: TeacherOutput, labels: Tensor) -> Tensor:
        if not self.hard:
            return super().soft_loss(student, teacher_output, labels)
        teacher = teacher_output.logits
        losses = F.cross_entropy(student, teacher.argmax(1), reduction="none")
        if self.confidence is not None:
            losses = losses * ~unsure_rows(teacher, self.confidence)[:, 0]
        return losses.mean()
