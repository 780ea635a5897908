"""Regression of the teacher's class token, the input of its head."""

from typing import Unpack

from torch import Tensor
from torch.nn import functional as F

from cdl.distillers.base import DistillerContext
from cdl.distillers.fitnets import FeatureDistiller
from cdl.distillers.kd import SoftOptions
from cdl.methods.heads import linear


class ClsFeature(FeatureDistiller):
    """Squared distance between the student's mapped class token and the teacher's.

    Unlike `FitNets` it works with different numbers of patches: other tokens are not compared.
    """

    def __init__(
        self,
        context: DistillerContext,
        *,
        feature_weight: float = 1.0,
        **soft: Unpack[SoftOptions],
    ) -> None:
        """Draw the linear map from student to teacher width; `soft` as in `KD`."""
        super().__init__(context, **soft)
        assert context.teacher is not None
        self.feature_weight = feature_weight
        self.proj = linear(context.student.width, context.teacher.width, context.generator)

    def feature_loss(self, student: tuple[Tensor, ...], teacher: tuple[Tensor, ...]) -> Tensor:
        """Return the loss between class tokens of the last block, before the final norm."""
        return self.feature_weight * F.mse_loss(self.proj(student[-1][:, 0]), teacher[-1][:, 0])
