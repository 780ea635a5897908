"""DIST (Huang et al., NeurIPS 2022): distillation by correlations."""

from typing import Unpack

from torch import Tensor

from cdl.distillers.base import DistillerContext, LabelOptions, TeacherOutput
from cdl.distillers.kd import KD


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Return Pearson's correlation `[n]` of the rows of `a` and `b`, both `[n, m]`."""
    a, b = (x - x.mean(1, keepdim=True) for x in (a, b))
    correlation: Tensor = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-8)
    return correlation


def dist_terms(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return inter and intra term of logits `[B, C_t]`, both multiplied by `tau^2`.

    Inter is one minus the mean correlation of the softened probabilities over classes, sample by
    sample; intra is one minus their mean correlation over the batch, class by class.
    """
    p, q = ((logits / temperature).softmax(1) for logits in (student, teacher))
    inter, intra = 1 - pearson(p, q).mean(), 1 - pearson(p.mT, q.mT).mean()
    return temperature**2 * inter, temperature**2 * intra


class DIST(KD):
    """`beta inter + gamma intra` instead of the KL divergence of softened logits."""

    def __init__(
        self,
        context: DistillerContext,
        *,
        alpha: float = 0.0,
        temperature: float = 1.0,
        soft_weight: float | None = 2.0,
        inter_weight: float = 1.0,
        intra_weight: float = 1.0,
        standardize: bool = False,
        confidence: float | None = None,
        **labels: Unpack[LabelOptions],
    ) -> None:
        """Set the weights of the terms; the other options are those of `KD`.

        Defaults as released: cross-entropy has weight 1, the soft loss 2; the temperature is 1.
        """
        super().__init__(
            context,
            alpha=alpha,
            temperature=temperature,
            soft_weight=soft_weight,
            standardize=standardize,
            confidence=confidence,
            **labels,
        )
        self.inter_weight, self.intra_weight = inter_weight, intra_weight

    def soft_loss(self, student: Tensor, teacher_output: TeacherOutput, labels: Tensor) -> Tensor:
        inter, intra = dist_terms(student, teacher_output.logits, self.temperature)
        return self.inter_weight * inter + self.intra_weight * intra
