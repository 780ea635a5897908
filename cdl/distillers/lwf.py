"""LwF (Li and Hoiem, ECCV 2016): the student's own outputs before the task."""

from typing import Unpack

from torch import Tensor
from torch.nn import functional as F

from cdl.distillers.base import Distiller, DistillerContext, Output, TeacherOutput
from cdl.distillers.kd import KD, SoftChoices


def past_cross_entropy(student: Tensor, past: Tensor, temperature: float) -> Tensor:
    """Return the cross-entropy of softened logits with those of the past, batch mean.

    It is not 0 at agreement, and not multiplied by the squared temperature.

    Args:
        student: logits `[B, C]`.
        past: logits `[B, C']` of the student after the previous task, of the first columns.
        temperature: of both.
    """
    known = student[:, : past.shape[1]]
    logs = F.log_softmax(known / temperature, dim=1)
    return -(F.softmax(past / temperature, dim=1) * logs).sum(1).mean()


class Past(KD):
    """Base of distillers of the student's own past, with or without a teacher.

    With the weight 0 of the soft loss the teacher is not used.
    """

    past_weight: float

    def past_loss(self, student: Tensor, past: Tensor, labelled: int) -> Tensor:
        """Return the loss of logits `[B, C]` and the past's `[B, C']`.

        The first `labelled` rows have a label.
        """
        raise NotImplementedError

    def forward(
        self, output: Output, teacher_output: TeacherOutput | None, labels: Tensor, classes: slice
    ) -> dict[str, Tensor]:
        if teacher_output is not None and self.soft_weight > 0:
            losses = super().forward(output, teacher_output, labels, classes)
        else:
            losses = Distiller.forward(self, output, teacher_output, labels, classes)
        losses["past"] = output.logits.new_zeros(())
        if teacher_output is not None and teacher_output.past is not None:
            loss = self.past_loss(output.logits, teacher_output.past, len(labels))
            losses["past"] = self.past_weight * loss
        return losses


class LwF(Past):
    """Cross-entropy of all images with the outputs of the student before the task."""

    def __init__(
        self,
        context: DistillerContext,
        *,
        alpha: float = 0.0,
        temperature: float = 2.0,
        past_weight: float = 3.0,
        past_temperature: float = 2.0,
        **soft: Unpack[SoftChoices],
    ) -> None:
        """Set the weights.

        Args:
            context: the two models.
            alpha: weight of the teacher's soft loss, as in `KD`.
            temperature: of the teacher's soft loss.
            past_weight: weight of the cross-entropy with the past.
            past_temperature: of the past.
            soft: as in `KD`.
        """
        super().__init__(context, alpha=alpha, temperature=temperature, **soft)
        self.past_weight, self.past_temperature = past_weight, past_temperature

    def past_loss(self, student: Tensor, past: Tensor, labelled: int) -> Tensor:
        return past_cross_entropy(student, past, self.past_temperature)
