"""Knowledge distillation by softened logits (Hinton, Vinyals and Dean, 2015)."""

from torch import Tensor
from torch.nn import functional as F

from cdl.distillers.base import Distiller, DistillerContext, Output, TeacherOutput


def kd_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return `tau^2 KL(teacher || student)` of softened logits `[B, C_t]`, batch mean."""
    kl = F.kl_div(
        F.log_softmax(student / temperature, dim=1),
        F.log_softmax(teacher / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return temperature**2 * kl


class KD(Distiller):
    """The class head learns labels and the teacher's logits."""

    def __init__(
        self, context: DistillerContext, *, alpha: float = 0.5, temperature: float = 2.0
    ) -> None:
        """Set the share `alpha` of the soft loss and its temperature."""
        super().__init__()
        self.alpha, self.temperature = alpha, temperature

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
        losses["soft"] = self.alpha * self.soft_loss(
            student, teacher_output, labels - classes.start
        )
        return losses
