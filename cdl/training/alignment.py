"""Classifier alignment: train the heads on sampled features after each task.

The samples of all classes seen come from normal distributions. A class's mean and spread are
computed from its features in the task that introduces it; no images are stored. SLCA (Zhang et al.,
ICCV 2023), HiDe-Prompt (Wang et al., NeurIPS 2023) and VQ-Prompt (Jiao et al., NeurIPS 2024) use
this mechanism with different settings.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cdl.data.labels import UNLABELLED, learnt_from
from cdl.models.learner import Learner
from cdl.runtime.errors import CdlError
from cdl.runtime.seeds import generator
from cdl.spec import Alignment, LearnerSpec
from cdl.training.context import TaskContext
from cdl.training.features import TestQuery, read_features
from cdl.training.schedules import lagged_warm_cosine

log = logging.getLogger(__name__)
RIDGE = 1e-4
_TOKENS = {0: "feature", -1: "kd_token"}
Draws = Callable[[int], tuple[Tensor, Tensor]]


def learning_rate(how: Alignment, epoch: int, step: int, steps: int) -> float:
    """Return the learning rate of a step; an epoch has `steps` steps."""
    if how.schedule == "cosine":
        return how.lr / 2 * (1 + math.cos(math.pi * epoch / how.epochs))
    if how.schedule == "lagged_cosine":
        i, total = epoch * steps + step, how.epochs * steps
        return lagged_warm_cosine(i, how.lr, how.lr / 10, total)
    return how.lr


def statistics_of(features: Tensor, labels: Tensor, statistic: str) -> dict[str, Tensor]:
    """Return `mean [C, D]` and `spread` of features `[n, D]`, classes ascending.

    The spread is `[C, D, D]` for `covariance`, `[C, D]` for the others, see `Alignment`.

    Raises:
        CdlError: a class has one image, too few for an unbiased spread.
    """
    means, spreads = [], []
    for label in labels.unique():  # sorted
        own = features[labels == label].double()
        if len(own) < 2 and statistic != "centroid":
            raise CdlError(
                f"alignment.statistic: {statistic} needs at least two training images per class, "
                "and a class has one; set statistic: centroid"
            )
        means.append(own.mean(0))
        if statistic == "covariance":
            spread = own.mT.cov() + RIDGE * torch.eye(own.shape[1], dtype=own.dtype).to(own.device)
        elif statistic == "variance":
            spread = own.var(0) + RIDGE
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
        return (spread + RIDGE if statistic == "centroid" else spread).sqrt()
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
    how: Alignment,
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
    mean = mean * torch.tensor(how.mean_factors(sizes), device=mean.device)[:, None]
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
                group["lr"] = learning_rate(how, epoch, step, steps)
            loss = alignment_loss(head(features)[:, :seen], targets, sizes, how.logit_norm)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
    return torch.stack(losses).view(how.epochs, steps)


def alignment_operations(learner: Learner, sizes: Sequence[int], how: Alignment) -> float:
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


def align_learner(
    context: TaskContext[LearnerSpec],
    learner: Learner,
    how: Alignment,
    memory: Mapping[str, Tensor],
    probabilities: Callable[[], Tensor] | None = None,
    **queries: TestQuery | None,
) -> dict[str, Tensor]:
    """Compute a task's class statistics and align all heads in place.

    An image of the task without a label has the teacher's most likely class; without a
    teacher it is not used. Images of `unlabelled`, which may be of any class, are never used.

    Args:
        context: context of the task.
        learner: the learner after its last step.
        how: options of the alignment.
        memory: return value of the previous task; empty for task 0.
        probabilities: function that returns the teacher's probabilities for the task's images
            `[n, C_t]`; None without a teacher.
        queries: `query` and `teacher_query`, as in `read_features`.

    Returns:
        Mean and spread of all classes seen, for each token of a head, and the state of the heads
        before the alignment if the next task continues from it.

    Raises:
        CdlError: a class of the task has too few training images.
    """
    heads, sizes = learner.heads(), context.stream.sizes[: context.task + 1]
    tokens = sorted({token for _, token in heads.values()})
    images = images_for_statistics(context, taught=probabilities is not None)
    features = read_features(context, learner, images, tokens, **queries)
    labels, known = features.labels, features.labels != UNLABELLED
    if probabilities is not None and not known.all():
        first = context.stream.classes(context.task).start
        labels = torch.where(known, labels, probabilities()[images].argmax(1) + first)
    found: dict[str, Tensor] = {}
    for token, rows in features.tokens.items():
        for part, new in statistics_of(rows, labels, how.statistic).items():
            key = f"{_TOKENS[token]}.{part}"
            found[key] = torch.cat([memory[key].to(new.device), new]) if context.task else new
    if any(len(rows) != sum(sizes) for rows in found.values()):
        raise CdlError(
            f"alignment: a class of task {context.task} has no training image; expected at least "
            "one per class"
        )
    for name, (head, token) in heads.items():
        if how.next_task == "trained":
            found |= {f"{name}.trained.{k}": t.clone() for k, t in head.state_dict().items()}
        if context.task:
            own = {part: found[f"{_TOKENS[token]}.{part}"] for part in ("mean", "spread")}
            shape = (sum(sizes), how.samples, own["mean"].shape[1])
            draws = drawing((*context.spec.keys, name, context.task), shape)
            losses = align(head, own, sizes, how, draws).mean(1)
            log.info("alignment of %s: loss %.4f to %.4f", name, losses[0], losses[-1])
    return found


def images_for_statistics(context: TaskContext[LearnerSpec], taught: bool) -> Tensor:
    """Return the positions of the images for the statistics of a task's classes.

    Args:
        context: context of the task.
        taught: whether a teacher gives the classes of images without a label.
    """
    own = len(context.indices(context.task)[0])
    return learnt_from(context.labels[:own], taught)


def restore_trained(learner: Learner, memory: Mapping[str, Tensor]) -> None:
    """Restore the heads' state before the last alignment, if a memory contains it."""
    for name, (head, _) in learner.heads().items():
        prefix = f"{name}.trained."
        trained = {k.removeprefix(prefix): t for k, t in memory.items() if k.startswith(prefix)}
        if trained:
            head.load_state_dict(trained)


def drawing(keys: Sequence[str | int], shape: tuple[int, int, int]) -> Draws:
    """Return the `draws` of `align`, a function of keys and epoch, on the CPU."""

    def draw(epoch: int) -> tuple[Tensor, Tensor]:
        source = generator(*keys, "alignment", epoch)
        noise = torch.randn(shape, generator=source)
        return noise, torch.randperm(shape[0] * shape[1], generator=source)

    return draw


def _optimizer(head: nn.Module, how: Alignment) -> torch.optim.Optimizer:
    learnt = [parameter for parameter in head.parameters() if parameter.requires_grad]
    options: dict[str, Any] = {"lr": how.lr, "weight_decay": how.weight_decay}
    if how.optimizer == "sgd":
        return torch.optim.SGD(learnt, momentum=how.momentum, **options)
    return torch.optim.AdamW(learnt, **options)
