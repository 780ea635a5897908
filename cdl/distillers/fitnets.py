"""FitNets (Romero et al., ICLR 2015): regression of the teacher's last block."""

from abc import abstractmethod
from typing import Unpack

from torch import Tensor
from torch.nn import functional as F

from cdl.distillers.base import DistillerContext, Output, TeacherOutput
from cdl.distillers.kd import KD, SoftOptions
from cdl.methods.heads import linear


class FeatureDistiller(KD):
    """`kd` with an additional loss on block outputs, which `alpha` does not scale."""

    @abstractmethod
    def feature_loss(self, student: tuple[Tensor, ...], teacher: tuple[Tensor, ...]) -> Tensor:
        """Return the weighted loss between block outputs `[B, N, D]` and `[B, N, Dt]`."""

    def forward(
        self, output: Output, teacher_output: TeacherOutput | None, labels: Tensor, classes: slice
    ) -> dict[str, Tensor]:
        assert teacher_output is not None
        losses = super().forward(output, teacher_output, labels, classes)
        losses["feature"] = self.feature_loss(output.blocks, teacher_output.blocks)
        return losses


class FitNets(FeatureDistiller):
    """Squared distance between the student's mapped last tokens and the teacher's."""

    def __init__(
        self,
        context: DistillerContext,
        *,
        feature_weight: float = 0.1,
        **soft: Unpack[SoftOptions],
    ) -> None:
        """Draw the linear map from student to teacher width; `soft` as in `KD`."""
        super().__init__(context, **soft)
        assert context.teacher is not None
        self.feature_weight = feature_weight
        self.proj = linear(context.student.width, context.teacher.width, context.generator)

    def feature_loss(self, student: tuple[Tensor, ...], teacher: tuple[Tensor, ...]) -> Tensor:
        return self.feature_weight * F.mse_loss(self.proj(student[-1]), teacher[-1])
