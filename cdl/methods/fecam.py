"""FeCAM (Goswami et al., NeurIPS 2023): distances to class means with a covariance per class."""

import torch
from torch import Tensor
from torch.nn import functional as F

from cdl.methods.base import PromptContext, PromptMethod, Prompts
from cdl.methods.heads import Head, PrototypeHead

_FAR = 1e3  # components of the mean of a class without images; features have unit norm
_EPS = torch.finfo(torch.float32).eps  # relative error of the features


def class_statistics(features: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weighted mean `[D]` and covariance `[D, D]` of features `[n, D]`, in fp64.

    The covariance is divided by the sum of the weights `[n]`, since no factor of it changes
    `precision`.
    """
    used = weights > 0
    rows, weights = features[used].double(), weights[used].double()
    weights = weights / weights.sum()
    mean = weights @ rows
    centred = rows - mean
    return mean, (weights[:, None] * centred).mT @ centred


def precision(covariance: Tensor, alpha1: float, alpha2: float) -> tuple[Tensor, Tensor]:
    """Return the inverse of the correlations of a shrunk covariance `[D, D]`, and its deviations.

    With the mean `v` of its diagonal and the mean `c` of its other entries, the covariance is
    shrunk to `S + alpha1 v I + alpha2 c (1 - I)` and divided by its standard deviations. Directions
    with eigenvalues below the rounding errors of the features have distance 0. A class of one image
    has no covariance: its inverse is `I`, its deviations are 0. `cdl.device.fecam` has the same in
    numpy.
    """
    width = len(covariance)
    identity = torch.eye(width, dtype=covariance.dtype, device=covariance.device)
    trace = covariance.trace()
    variance, other = trace / width, (covariance.sum() - trace) / max(1, width * (width - 1))
    if variance < _EPS**2:
        return identity, covariance.new_zeros(width)
    shrunk = covariance + alpha1 * variance * identity + alpha2 * other * (1 - identity)
    deviation = shrunk.diagonal().sqrt()
    correlation = shrunk / (deviation[:, None] * deviation)
    return torch.linalg.pinv(correlation, rtol=_EPS, hermitian=True), deviation


class FecamHead(PrototypeHead):
    """Negative squared Mahalanobis distances to class means.

    Each class stores its mean and a matrix `[D, D]`: 147 kB at width 192, 2.4 MB at 768.
    """

    grows = {"weight": 0, "precision": 0}
    from_sums = False
    precision: Tensor

    def __init__(
        self,
        width: int,
        n_classes: int,
        generator: torch.Generator,
        *,
        tukey: float | None,
        alpha1: float,
        alpha2: float,
        scale: float,
    ) -> None:
        """Start with `n_classes` classes without images.

        Args:
            width: width of the token.
            n_classes: initial number of classes.
            generator: not used; nothing is drawn.
            tukey: see `FeCAM`.
            alpha1: see `precision`.
            alpha2: see `precision`.
            scale: factor of the logits.
        """
        super().__init__(width, 0, generator, None, "mean", scale=scale)
        self.tukey, self.alpha1, self.alpha2 = tukey, alpha1, alpha2
        self.register_buffer("precision", torch.zeros(0, width, width))
        self.grow(n_classes, generator)

    def grow(self, n: int, generator: torch.Generator) -> None:
        seen, width = self.weight.shape
        means, identity = self.weight.new_full((n, width), _FAR), torch.eye(width)
        self.append(seen, weight=means, precision=identity.expand(n, width, width))

    def features(self, token: Tensor) -> Tensor:
        """Return tokens `[B, D]` after Tukey's transformation, if any, with unit norm."""
        if self.tukey is not None:
            token = F.relu(token) ** self.tukey
        return F.normalize(token, dim=1, eps=1e-12)

    @torch.no_grad()
    def learn(self, features: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Store the mean and the matrix of each class that has targets `[n, C]` above 0.

        Returns:
            `counts [C]`, sums of targets, and `deviations [C, D]`, with which `precision` gives the
            covariance back; zeros for classes without targets.
        """
        counts, deviations = targets.sum(0), torch.zeros_like(self.weight)
        found = counts.nonzero().flatten().tolist()
        self.inverses = len(found)
        for c in found:
            mean, covariance = class_statistics(features, targets[:, c])
            self.weight[c] = mean
            self.precision[c], deviations[c] = precision(covariance, self.alpha1, self.alpha2)
        return {"counts": counts, "deviations": deviations[: len(counts)]}

    def forward(self, token: Tensor) -> Tensor:
        apart = self.features(token) - self.weight[:, None]  # [C, B, D]
        return -self.scale * ((apart @ self.precision) * apart).sum(-1).mT


class FeCAM(PromptMethod):
    """Nothing is trained; the covariance of a class is stored beside its mean.

    As in the released code for ViTs, features have unit norm before the statistics.
    """

    def __init__(
        self,
        context: PromptContext,
        *,
        tukey: float | None = None,
        alpha1: float = 1.0,
        alpha2: float = 1.0,
        logit_scale: float = 1.0,
        labels: str | None = None,
        label_classes: str = "task",
    ) -> None:
        """Store the options.

        Args:
            context: the backbone.
            tukey: power of Tukey's transformation; negative features become 0. None: none, as in
                the paper for ViTs, whose features can be negative.
            alpha1: factor of the mean variance that is added to the variances.
            alpha2: factor of the mean covariance that is added to the covariances.
            logit_scale: factor of the negative squared distances, which does not change the
                predicted class.
            labels: classes of images without a label, see `cdl.training.labelling`.
            label_classes: among which `labels` chooses.
        """
        super().__init__()
        self.tukey, self.alpha1, self.alpha2 = tukey, alpha1, alpha2
        self.logit_scale, self.labels, self.label_classes = logit_scale, labels, label_classes

    def make_head(self, width: int, n_classes: int, generator: torch.Generator) -> Head:
        return FecamHead(
            width,
            n_classes,
            generator,
            tukey=self.tukey,
            alpha1=self.alpha1,
            alpha2=self.alpha2,
            scale=self.logit_scale,
        )

    def forward(self, query: Tensor | None, task: int) -> Prompts:
        return Prompts()
