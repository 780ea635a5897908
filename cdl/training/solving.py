"""Learn a task without gradient steps: solve for the weights of a `PrototypeHead`."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from cdl.data.labels import UNLABELLED, learnt_from
from cdl.device.closed import FIT_SHARE, RIDGES
from cdl.distillers.kd import SoftOrHardKD, standardised
from cdl.methods.heads import PrototypeHead
from cdl.models.learner import Learner
from cdl.models.returned import rows_of
from cdl.runtime.errors import CdlError
from cdl.runtime.seeds import permutation
from cdl.spec import Labelling, LearnerSpec
from cdl.training.answers import TeacherAnswers
from cdl.training.context import TaskContext, no_query
from cdl.training.features import Features, read_features, teacher_probabilities
from cdl.training.labelling import assigned, class_means, images_counted, labels_of
from cdl.training.ranpac import (
    Sums,
    accumulate,
    best_ridge,
    mean_weights,
    ridge_weights,
    validation_losses,
)
from cdl.training.teacher import TeacherSource

_ORDER = 401  # purpose of the counter-based draws
MEANS = "feature.mean"  # in the memory: mean class tokens of the labelled images, by class

Context = TaskContext[LearnerSpec]


@dataclass(frozen=True)
class Learnt:
    """What a task has changed besides the learner itself.

    history: see `cdl.training.loop.train_task`; of a solve one row, with the validation error of
        the selected ridge.
    images: number of training views, or of the images that are read for a solve.
    memory: tensors for later tasks: the sums, and `MEANS` if images without a label get the nearest
        of all classes seen.
    errors: for each of `RIDGES` the total squared error on the task's validation images; empty
        without a ridge.
    solves: number of images of each solve.
    assigned: see `cdl.training.labelling.assigned`; empty if no image gets a label.
    """

    history: pd.DataFrame
    images: int
    memory: Sums = field(default_factory=dict)
    errors: list[float] = field(default_factory=list)
    solves: tuple[int, ...] = ()
    assigned: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Fit:
    """Weights `[seen, M]` of a head, the sums, and the errors of the ridge on validation images."""

    weight: Tensor
    sums: Sums
    error: float = float("nan")
    errors: list[float] = field(default_factory=list)


def solve_task(
    context: Context,
    learner: Learner,
    teacher: TeacherSource | None,
    answers: TeacherAnswers | None,
    memory: Mapping[str, Tensor],
) -> Learnt:
    """Learn a task: solve for the weights of a learner's `PrototypeHead`.

    The ridge is selected on a fifth of the task's images and used with the sums of all tasks, see
    `best_ridge`. With `ridge_images: all` the errors on this fifth of every task are added up, and
    the sums contain the total, `errors [17]`.

    With a distiller all images have a target. Otherwise the images without a label are used if
    they get one, see `cdl.training.labelling`. For `self` the weights are computed from the
    labelled images first; their most likely classes are the labels of a second solve. Images that
    get a class of an earlier task are left out.

    Args:
        context: context of the task.
        learner: a learner of a method that solves for its head.
        teacher: source of soft labels, the targets of a distiller; None without them.
        answers: the teacher that labels images; None without one.
        memory: that of the previous task; empty for task 0.

    Raises:
        CdlError: the task has fewer than two images, so that none can be held out.
    """
    how, head = context.spec.labelling, learner.head
    assert isinstance(head, PrototypeHead)
    taught = teacher is not None
    images = images_counted(context, how) if how else learnt_from(context.labels, taught)
    read = read_features(context, learner, images)
    given: dict[str, int] = {}
    solves: list[int] = []
    if how is None:
        features = head.features(read.tokens[0])
        targets = _targets(context, learner, teacher, read.labels).to(features.dtype)
        known = targets.isfinite().all(1)
        features, targets = features[known], targets[known]
    else:
        labels, solves = _labels(context, how, head, read, images, answers, memory)
        new = labels >= context.stream.classes(context.task).start
        features = head.features(read.tokens[0][new])
        targets = _one_hot(context, labels[new]).to(features.dtype)
        given = assigned(context, images, labels)
    solves.append(len(features))
    row = {"task": context.task, "epoch": 0, "learning_rate": 0.0}
    fit = _fit(context, head, features, targets, memory)
    head.weight[: targets.shape[1]].copy_(fit.weight)
    sums = fit.sums if how is None else fit.sums | _means(context, how, read, memory)
    history = pd.DataFrame([row | {"validation": fit.error}])
    return Learnt(history, len(images), sums, fit.errors, tuple(solves), given)


def _one_hot(context: Context, labels: Tensor) -> Tensor:
    return F.one_hot(labels, context.stream.classes(context.task).stop)


def _labels(
    context: Context,
    how: Labelling,
    head: PrototypeHead,
    read: Features,
    images: Tensor,
    answers: TeacherAnswers | None,
    memory: Mapping[str, Tensor],
) -> tuple[Tensor, list[int]]:
    """Return the classes of the images, see `labels_of`, and the images of the solve for them."""
    solves: list[int] = []

    def own() -> Tensor:
        known = read.labels != UNLABELLED
        features = head.features(read.tokens[0][known])
        targets = _one_hot(context, read.labels[known]).to(features.dtype)
        solves.append(len(features))
        weight = _fit(context, head, features, targets, memory).weight
        head.weight[: targets.shape[1]].copy_(weight)
        logits: Tensor = head(read.tokens[0])
        return logits

    earlier = memory.get(MEANS)
    return labels_of(context, how, read, images, own=own, earlier=earlier, teacher=answers), solves


def _means(context: Context, how: Labelling, read: Features, memory: Mapping[str, Tensor]) -> Sums:
    """Return `MEANS` after the task, if later tasks compare images with them; else nothing."""
    if (how.by, how.columns) != ("nearest", "seen"):
        return {}
    classes, tokens = context.stream.classes(context.task), read.tokens[0]
    means = [class_means(tokens, read.labels, classes)]
    if MEANS in memory:
        means.insert(0, memory[MEANS][: classes.start].to(tokens))
    return {MEANS: torch.cat(means)}


def _fit(
    context: Context,
    head: PrototypeHead,
    features: Tensor,
    targets: Tensor,
    memory: Mapping[str, Tensor],
) -> _Fit:
    """Return the weights after a task with features `[n, M]` and targets `[n, seen]`."""
    if not head.from_sums:
        kept = rows_of(head.learn(features, targets), head)
        start = context.stream.classes(context.task).start
        for name, rows in kept.items() if start else ():
            if name not in memory:  # the previous task's artifact is of an earlier version
                return _Fit(head.weight[: targets.shape[1]], {})
            rows[:start] = memory[name][:start].to(rows)
        return _Fit(head.weight[: targets.shape[1]], kept)
    sums = accumulate(memory, features, targets)
    if not head.ridge:
        if not head.keeps_gram:
            del sums["gram"]
        return _Fit(mean_weights(sums), sums)
    n = len(features)
    if n < 2:
        raise CdlError(
            f"ranpac: task {context.task + 1} has {n} training examples; expected at least two"
        )
    order = permutation((_ORDER, context.spec.seed, context.task), n).to(features.device)
    losses = validation_losses(features[order], targets[order])
    totals = losses.double() * (n - int(FIT_SHARE * n)) * targets.shape[1]
    known = losses
    if head.ridge_images == "all":
        known = totals + memory.get("errors", torch.zeros_like(totals)).to(totals)
        sums["errors"] = known
    best = best_ridge(known, sums["gram"])
    weight = ridge_weights(sums["gram"], sums["prototypes"], RIDGES[best])
    return _Fit(weight, sums, float(losses[best]), totals.tolist())


@torch.no_grad()
def _targets(
    context: TaskContext[LearnerSpec],
    learner: Learner,
    teacher: TeacherSource | None,
    labels: Tensor,
) -> Tensor:
    """Return targets `[n, seen]` from labels and the teacher's outputs.

    They are weighted as in the distiller `kd`. Unlabelled rows use the teacher's output instead of
    a label; without a teacher they are zero. Rows without an answer use their label; they are NaN
    if they have none.
    """
    classes, known = context.stream.classes(context.task), labels != UNLABELLED
    hard = F.one_hot(labels.clamp_min(0), classes.stop).float() * known[:, None]
    if teacher is None:
        return hard
    kd = learner.distiller
    assert isinstance(kd, SoftOrHardKD), "planning accepts no other distiller"

    def softened(logits: Tensor) -> Tensor:
        logits = standardised(logits) if kd.standardize else logits
        return (logits / kd.temperature).softmax(1)

    soft = torch.zeros_like(hard)
    given = teacher_probabilities(context, teacher, no_query, softened)
    gaps = given.isnan().any(1, keepdim=True)
    if kd.hard:
        given = F.one_hot(given.argmax(1), given.shape[1]).to(given.dtype)
    soft[:, classes] = given
    soft = torch.where(gaps, torch.where(known[:, None], hard, torch.nan), soft)
    hard = torch.where(known[:, None], hard, soft)
    return (1 - kd.alpha) * hard + kd.soft_weight * soft
