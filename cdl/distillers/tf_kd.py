"""Tf-KD with a virtual teacher (Yuan et al., CVPR 2020): softened labels, without any teacher."""

import math
from typing import Unpack

import torch
from torch import Tensor

from cdl.distillers.base import (
    Distiller,
    DistillerContext,
    LabelOptions,
    Output,
    TeacherOutput,
)
from cdl.distillers.kd import kd_loss
from cdl.runtime.errors import CdlError


def virtual_logits(labels: Tensor, n_classes: int, correct: float) -> Tensor:
    """Return logits `[B, C_t]` of a teacher that gives every label the probability `correct`.

    The other classes share the rest equally. Labels `[B]` count from the first class.

    Raises:
        CdlError: there are fewer than two classes.
    """
    if n_classes < 2:
        raise CdlError(
            "distillers.tf_kd: a task has one class; expected at least two classes in every task"
        )
    rest = math.log((1 - correct) / (n_classes - 1))
    logits = torch.full((len(labels), n_classes), rest, device=labels.device)
    return logits.scatter(1, labels[:, None], math.log(correct))


class TfKD(Distiller):
    """The loss of `kd` with a teacher that knows the labels and nothing else.

    Images without a label are not used.
    """

    def __init__(
        self,
        context: DistillerContext,
        *,
        alpha: float = 0.5,
        temperature: float = 2.0,
        correct: float = 0.9,
        **labels: Unpack[LabelOptions],
    ) -> None:
        """Set the weights.

        Args:
            context: the student.
            alpha: weight of the soft loss; cross-entropy has the weight `1 - alpha`.
            temperature: temperature of the soft loss.
            correct: probability of the label, before the temperature.
            labels: as in `Distiller`.
        """
        super().__init__(**labels)
        self.alpha, self.temperature, self.correct = alpha, temperature, correct

    def forward(
        self, output: Output, teacher_output: TeacherOutput | None, labels: Tensor, classes: slice
    ) -> dict[str, Tensor]:
        losses = super().forward(output, teacher_output, labels, classes)
        student = output.logits[: len(labels), classes]
        target = virtual_logits(labels - classes.start, student.shape[1], self.correct)
        losses["soft"] = self.alpha * kd_loss(student, target.to(student), self.temperature)
        return losses
