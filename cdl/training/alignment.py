"""Classifier alignment: train the heads on sampled features after each task.

The samples of all classes seen come from normal distributions. A class's mean and spread are
computed from its features in the task that introduces it; no images are stored. SLCA (Zhang et al.,
ICCV 2023), HiDe-Prompt (Wang et al., NeurIPS 2023) and VQ-Prompt (Jiao et al., NeurIPS 2024) use
this mechanism with different settings. `cdl.device.aligning` has the same in numpy, for students
that learn on.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cdl.device.aligning import mean_factors
from cdl.device.closed import DIAGONAL
from cdl.device.schedules import alignment_rate
from cdl.models.learner import Learner
from cdl.runtime.errors import CdlError
from cdl.runtime.seeds import generator
from cdl.spec import SampledAlignment

_FLOOR = 1e-5
SSIAT_SIGMA = 4.0  # distance at which an image of the task counts as near
Draws = Callable[[int], tuple[Tensor, Tensor]]


def statistics_of(features: Tensor, labels: Tensor, statistic: str) -> dict[str, Tensor]:
    """Return `mean [C, D]` and `spread` of features `[n, D]`, classes ascending.

    The spread is `[C, D, D]` for `covariance`, `[C, D]` for the others, see `SampledAlignment`.

    Raises:
        CdlError: a class has one image, too few for an unbiased spread.
    """
    means, spreads = [], []
    for label in labels.unique():  # sorted
        own = features[labels == label].double()
        if len(own) < 2 and statistic != "centroid":
            raise CdlError(
                f"alignment.statistic: {statistic} needs at least two training examples per class, "
                "and a class has one; set statistic: centroid"
            )
        means.append(own.mean(0))
        if statistic == "covariance":
            spread = own.mT.cov()
            spread.diagonal().add_(DIAGONAL)
        elif statistic == "variance":
            spread = own.var(0) + DIAGONAL
        else:
            spread = own.var(0, correction=0)
        spreads.append(spread)
    return {"mean": torch.stack(means).float(), "spread": torch.stack(spreads).float()}


def factors_of(spread: Tensor, statistic: str) -> Tensor:
    """Return the factors of the noise: Cholesky factors or standard deviations.

    Raises:
        CdlError: a covariance is not positive definite.
    """
    if statistic != "covariance":
        return (spread + DIAGONAL if statistic == "centroid" else spread).sqrt()
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(spread.double())
    if failed.any():
        raise CdlError(
            "alignment.statistic: the covariance of a class is not positive definite; set "
            "statistic: variance"
        )
    lower: Tensor = factor
    return lower.float()


def alignment_loss(
    logits: Tensor, labels: Tensor, sizes: Sequence[int], logit_norm: float
) -> Tensor:
    """Return the cross-entropy of logits `[n, seen]`, batch mean.

    If `logit_norm` is not 0, the logits of a sample are divided by it and by the mean over tasks of
    the norm of the task's logits; the norms are differentiated.
    """
    if logit_norm:
        norms = [part.norm(dim=1) + 1e-7 for part in logits.split(list(sizes), dim=1)]
        logits = logits / torch.stack(norms).mean(0)[:, None] / logit_norm
    return F.cross_entropy(logits, labels)


def align(
    head: nn.Module,
    statistics: Mapping[str, Tensor],
    sizes: Sequence[int],
    how: SampledAlignment,
    draws: Draws,
) -> Tensor:
    """Train a head in place on sampled features of all classes seen.

    Args:
        head: features `[n, D]` to logits `[n, C]`.
        statistics: `mean` and `spread` of the classes seen, see `statistics_of`.
        sizes: number of classes of each task seen.
        how: options of the alignment.
        draws: function of an epoch that returns noise `[seen, samples, D]` and a permutation of
            all its rows.

    Returns:
        The loss of every step before its update, `[epochs, steps]`.
    """
    mean, seen = statistics["mean"], sum(sizes)
    factor = factors_of(statistics["spread"], how.statistic)
    factors = torch.tensor(mean_factors(how.mean_shrink, sizes), dtype=torch.float32)
    mean = mean * factors.to(mean.device)[:, None]
    labels = torch.arange(seen, device=mean.device).repeat_interleave(how.samples)
    steps = seen if how.steps == "seen" else seen - sizes[-1]
    optimizer = _optimizer(head, how)
    losses = []
    for epoch in range(how.epochs):
        noise, order = (drawn.to(mean.device) for drawn in draws(epoch))
        wide = how.statistic == "covariance"
        offset = noise @ factor.mT if wide else noise * factor[:, None]
        samples = (mean[:, None] + offset).flatten(0, 1)[order]
        rows = zip(samples.split(how.samples), labels[order].split(how.samples), strict=True)
        for step, (features, targets) in zip(range(steps), rows, strict=False):
            for group in optimizer.param_groups:
                group["lr"] = alignment_rate(how.schedule, how.lr, epoch, how.epochs, step, steps)
            loss = alignment_loss(head(features)[:, :seen], targets, sizes, how.logit_norm)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
    return torch.stack(losses).view(how.epochs, steps)


def compensated(
    statistics: Mapping[str, Tensor], old: Tensor, new: Tensor, statistic: str, drift: str = "sdc"
) -> Tensor:
    """Return the means of earlier classes, moved as the features of a task's images moved.

    Semantic drift compensation (Yu et al., CVPR 2020), see `shifted_means`. With `sdc` the variance
    is the total variance of the class, so that it has the scale of the features; with `ssiat` it
    is 16 for all classes, as in SSIAT.

    Args:
        statistics: `mean [C, D]` and `spread` of the earlier classes, see `statistics_of`.
        old: features `[n, D]` of the task's images before the task.
        new: features of the same images after the task.
        statistic: see `SampledAlignment`.
        drift: `sdc`, `ssiat` or, with rows of `new` in another order, `ssiat_as_released`.
    """
    mean, spread = (statistics[part].double() for part in ("mean", "spread"))
    if drift != "sdc":
        return shifted_means(mean, old, new, SSIAT_SIGMA**2)
    if statistic == "covariance":
        spread = spread.diagonal(dim1=1, dim2=2)
    return shifted_means(mean, old, new, spread.sum(1, keepdim=True))


def shifted_means(mean: Tensor, old: Tensor, new: Tensor, variance: Tensor | float) -> Tensor:
    """Return means `[C, D]`, each moved by a weighted mean of the images' shifts.

    The weight of an image is `exp(-|old - mean|^2 / (2 s^2)) + 1e-5`; the constant (Tan et al.,
    CVPR 2024) gives the mean shift to a class that is far from all images.

    Args:
        mean: `[C, D]`.
        old: features `[n, D]` of the images before a task.
        new: features of the same images after it, row by row.
        variance: `s^2`, a number or `[C, 1]`.
    """
    mean = mean.double()
    squares = torch.cdist(mean, old.double()).square()
    weights = torch.exp(-squares / (2 * variance)) + _FLOOR
    shift = weights @ (new - old).double() / weights.sum(1, keepdim=True)
    return (mean + shift).float()


def alignment_operations(learner: Learner, sizes: Sequence[int], how: SampledAlignment) -> float:
    """Return the operations of the alignment of all heads for prediction.

    Args:
        learner: the learner with these heads.
        sizes: number of classes of each task seen; with one task there is no alignment.
        how: options of the alignment.
    """
    steps = sum(sizes) if how.steps == "seen" else sum(sizes[:-1])
    rows = how.epochs * steps * how.samples if len(sizes) > 1 else 0
    heads = [head for head, _ in learner.heads().values()]
    return 6.0 * rows * sum(p.numel() for head in heads for p in head.parameters())


def drawing(keys: Sequence[str | int], shape: tuple[int, int, int]) -> Draws:
    """Return the `draws` of `align`, a function of keys and epoch, on the CPU."""

    def draw(epoch: int) -> tuple[Tensor, Tensor]:
        source = generator(*keys, "alignment", epoch)
        noise = torch.randn(shape, generator=source)
        return noise, torch.randperm(shape[0] * shape[1], generator=source)

    return draw


def _optimizer(head: nn.Module, how: SampledAlignment) -> torch.optim.Optimizer:
    learnt = [parameter for parameter in head.parameters() if parameter.requires_grad]
    options: dict[str, Any] = {"lr": how.lr, "weight_decay": how.weight_decay}
    if how.optimizer == "sgd":
        return torch.optim.SGD(learnt, momentum=how.momentum, **options)
    return torch.optim.AdamW(learnt, **options)
