"""Learn a task without gradient steps: solve for the weights of a `PrototypeHead`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from cdl.data.labels import UNLABELLED, learnt_from
from cdl.distillers.kd import SoftOrHardKD, standardised
from cdl.methods.heads import PrototypeHead
from cdl.models.learner import Learner
from cdl.runtime.errors import CdlError
from cdl.runtime.seeds import permutation
from cdl.spec import LearnerSpec
from cdl.training.answers import TeacherAnswers
from cdl.training.context import TaskContext, no_query
from cdl.training.features import Features, read_features, teacher_probabilities
from cdl.training.labelling import assigned, class_means, images_counted, labels_of
from cdl.training.ranpac import (
    FIT_SHARE,
    RIDGES,
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
    classes = context.stream.classes(context.task)
    if how is None:
        images = learnt_from(context.labels, taught=teacher is not None)
    else:
        images = images_counted(context, how)
    read = read_features(context, learner, images)
    tokens, labels = read.tokens[0], read.labels
    features = head.features(tokens)
    given: dict[str, int] = {}
    solves: list[int] = []
    if how is None:
        targets = _targets(context, learner, teacher, labels).to(features.dtype)
    else:
        own = partial(_own_logits, context, head, features, read, memory, solves)
        earlier = memory.get(MEANS)
        found = labels_of(context, how, read, images, own=own, earlier=earlier, teacher=answers)
        given, new = assigned(context, images, found), found >= classes.start
        features = features[new]
        targets = F.one_hot(found[new], classes.stop).to(features.dtype)
    row = {"task": context.task, "epoch": 0, "learning_rate": 0.0}
    if not head.from_sums:
        head.learn(features, targets)
        history = pd.DataFrame([row | {"validation": float("nan")}])
        return Learnt(history, len(images), solves=(len(images),))
    fit = _fit(context, head, features, targets, memory)
    head.weight[: classes.stop].copy_(fit.weight)
    if how is not None and (how.by, how.columns) == ("nearest", "seen"):
        means = [class_means(tokens, labels, classes)]
        if MEANS in memory:
            means.insert(0, memory[MEANS][: classes.start].to(tokens))
        fit.sums[MEANS] = torch.cat(means)
    history = pd.DataFrame([row | {"validation": fit.error}])
    solves.append(len(features))
    return Learnt(history, len(images), fit.sums, fit.errors, tuple(solves), given)


def _own_logits(
    context: Context,
    head: PrototypeHead,
    features: Tensor,
    read: Features,
    memory: Mapping[str, Tensor],
    solves: list[int],
) -> Tensor:
    """Solve for the labelled images and return the head's logits `[n, seen]` for all images.

    Args:
        context: context of the task.
        head: its weights are set.
        features: `[n, M]` of the images.
        read: tokens and labels of the images.
        memory: that of the previous task.
        solves: the number of images of the solve is appended to it.
    """
    known, seen = read.labels != UNLABELLED, context.stream.classes(context.task).stop
    solves.append(int(known.sum()))
    targets = F.one_hot(read.labels[known], seen).to(features.dtype)
    head.weight[:seen].copy_(_fit(context, head, features[known], targets, memory).weight)
    logits: Tensor = head(read.tokens[0])
    return logits


def _fit(
    context: Context,
    head: PrototypeHead,
    features: Tensor,
    targets: Tensor,
    memory: Mapping[str, Tensor],
) -> _Fit:
    """Return the weights after a task with features `[n, M]` and targets `[n, seen]`."""
    sums = accumulate(memory, features, targets)
    if not head.ridge:
        if not head.keeps_gram:
            del sums["gram"]
        return _Fit(mean_weights(sums), sums)
    n = len(features)
    if n < 2:
        raise CdlError(
            f"ranpac: task {context.task} has {n} training examples; expected at least two"
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
    """Return targets `[n, seen]` from labels and the teacher's outputs, of the distiller `kd`.

    They are weighted as in the distiller `kd`. Unlabelled rows use the teacher's output instead of
    a label; without a teacher they are zero.
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
    if kd.hard:
        given = F.one_hot(given.argmax(1), given.shape[1]).to(given.dtype)
    soft[:, classes] = given
    hard = torch.where(known[:, None], hard, soft)
    return (1 - kd.alpha) * hard + kd.soft_weight * soft
