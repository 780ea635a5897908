"""ReviewKD (after Chen et al., CVPR 2021): regression of several teacher blocks."""

from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cdl.distillers.base import DistillerContext
from cdl.distillers.fitnets import FeatureDistiller
from cdl.distillers.kd import SoftOptions
from cdl.methods.heads import linear


class ReviewUnit(nn.Module):
    """Map the tokens of a block, fuse them with deeper ones, and project them."""

    def __init__(
        self, width: int, teacher_width: int, deepest: bool, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.proj1 = linear(width, width, generator)
        self.norm1 = nn.LayerNorm(width, eps=1e-5)
        self.proj2 = linear(width, teacher_width, generator)
        if not deepest:
            self.projz = linear(width, width, generator)
            self.normz = nn.LayerNorm(width, eps=1e-5)
            self.norm2 = nn.LayerNorm(width, eps=1e-5)

    def forward(self, tokens: Tensor, deeper: Tensor | None) -> Tensor:
        """Return the fused tokens `[B, N, D]`; `deeper` is None for the deepest block."""
        x: Tensor = self.norm1(self.proj1(tokens))
        if deeper is None:
            return x
        fused: Tensor = self.norm2(x * self._gate(x) + deeper * self._gate(deeper))
        return fused

    def _gate(self, x: Tensor) -> Tensor:
        gate: Tensor = self.normz(self.projz(x))
        return gate


class ReviewKD(FeatureDistiller):
    """Squared distance of fused student tokens to the teacher's, mean over blocks."""

    def __init__(
        self,
        context: DistillerContext,
        *,
        feature_weight: float = 0.2,
        **soft: Unpack[SoftOptions],
    ) -> None:
        """Draw one unit per student block; the teacher must have at least as many blocks."""
        super().__init__(context, **soft)
        assert context.teacher is not None
        self.feature_weight = feature_weight
        n = context.student.depth
        widths = context.student.width, context.teacher.width
        self.units = nn.ModuleList(
            ReviewUnit(*widths, block == n - 1, context.generator) for block in range(n)
        )

    def project(self, student: tuple[Tensor, ...]) -> list[Tensor]:
        """Return the fused tokens of each block, `[B, N, Dt]`, from shallow to deep."""
        fused, projected = None, []
        units: list[Any] = list(reversed(self.units))
        for unit, tokens in zip(units, reversed(student), strict=True):
            fused = unit(tokens, fused)
            projected.append(unit.proj2(fused))
        return projected[::-1]

    def feature_loss(self, student: tuple[Tensor, ...], teacher: tuple[Tensor, ...]) -> Tensor:
        """Return the loss over all student blocks and as many last teacher blocks."""
        pairs = zip(self.project(student), teacher[-len(student) :], strict=True)
        first, *others = (F.mse_loss(own, target) for own, target in pairs)
        return self.feature_weight * sum(others, first) / len(student)
