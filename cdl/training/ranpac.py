"""Training of RanPAC (McDonnell et al., NeurIPS 2023): one linear solve per task.

With features `H [n, M]` and targets `Y [n, C]` a task adds `H^T H` to the Gram matrix `G` and
`H^T Y` to the prototypes `Q`; the weights are `((G + r I)^-1 Q)^T`. The images of earlier tasks are
not needed.
"""

from collections.abc import Mapping

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
from cdl.training.context import TaskContext, no_query
from cdl.training.features import read_features, teacher_probabilities
from cdl.training.teacher import TeacherSource

_ORDER = 401  # purpose of the counter-based draws
RIDGES = tuple(10.0**e for e in range(-8, 9))
FIT_SHARE = 0.8

Sums = dict[str, Tensor]


def accumulate(sums: Mapping[str, Tensor], features: Tensor, targets: Tensor) -> Sums:
    """Return the sums after adding a task.

    Args:
        sums: `gram [M, M]`, `prototypes [M, C]` and `counts [C]` so far, perhaps others; empty
            before task 0.
        features: `[n, M]`.
        targets: `[n, C]`, non-negative; `C` can be larger than in the previous task.
    """
    new = {
        "gram": features.mT @ features,
        "prototypes": features.mT @ targets,
        "counts": targets.sum(0),
    }
    for name in new.keys() & sums.keys():
        old = sums[name]
        shared = new[name] if name == "gram" else new[name][..., : old.shape[-1]]
        shared += old.to(shared.device)
    return new


def ridge_weights(gram: Tensor, prototypes: Tensor, ridge: float) -> Tensor:
    """Return `((G + r I)^-1 Q)^T`, `[C, M]`, solved in float64."""
    system = gram.to(torch.float64, copy=True)
    system.diagonal().add_(ridge)
    solution: Tensor = torch.linalg.solve(system, prototypes.double())
    return solution.mT.to(gram.dtype)


def validation_losses(features: Tensor, targets: Tensor) -> Tensor:
    """Return the mean squared error of each of `RIDGES` on held-out rows, `[17]`.

    The first `int(0.8 n)` rows of features `[n, M]` and targets `[n, C]` are fitted, the others
    are held out; the rows must be in random order. The smaller of two equivalent linear systems is
    solved.
    """
    n = int(FIT_SHARE * len(features))
    fit, rest = features[:n], features[n:]
    if n < features.shape[1]:  # `(H^T H + r I)^-1 H^T = H^T (H H^T + r I)^-1`
        system, right = fit @ fit.mT, targets[:n]
        rest = rest @ fit.mT
    else:
        system, right = fit.mT @ fit, fit.mT @ targets[:n]
    errors = [rest @ ridge_weights(system, right, r).mT - targets[n:] for r in RIDGES]
    return torch.stack([error.square().mean() for error in errors])


def best_ridge(losses: Tensor, gram: Tensor) -> int:
    """Return the index of the numerically safe ridge with the lowest loss `[17]`.

    The rounding errors of a Gram matrix `[M, M]` shift its eigenvalues by about its trace times the
    machine epsilon. Smaller ridges than this are excluded, because their solution would depend on
    the rounding errors. If all are excluded, the largest ridge is used.
    """
    smallest = torch.finfo(gram.dtype).eps * float(gram.trace())
    safe = [i for i, ridge in enumerate(RIDGES) if ridge >= smallest] or [len(RIDGES) - 1]
    return safe[int(losses[safe].argmin())]


def mean_weights(sums: Mapping[str, Tensor]) -> Tensor:
    """Return the mean features of all classes, `[C, M]`; 0 for a class without images."""
    return (sums["prototypes"] / sums["counts"].clamp_min(1e-12)).mT


def solve_task(
    context: TaskContext[LearnerSpec],
    learner: Learner,
    teacher: TeacherSource | None,
    memory: Mapping[str, Tensor],
) -> tuple[pd.DataFrame, Sums, list[float]]:
    """Learn a task: solve for the weights of a learner's `PrototypeHead`.

    The ridge is selected on a fifth of the task's images and used with the sums of all tasks, see
    `best_ridge`. With `ridge_images: all` the errors on this fifth of every task are added up, and
    the sums contain the total, `errors [17]`. A learner with a teacher uses all images, a learner
    without one the labelled ones.

    Args:
        context: context of the task.
        learner: a learner of a method that solves for its head.
        teacher: source of soft labels; None without a teacher.
        memory: the sums after the previous task; empty for task 0.

    Returns:
        The history of the task, in the form of `cdl.training.loop.train_task`, with one row: the
        validation error of the selected ridge; the new sums; and for each of `RIDGES` the total
        squared error on the task's validation images (none without a ridge).

    Raises:
        CdlError: the task has fewer than two images, so that none can be held out.
    """
    images = learnt_from(context.labels, taught=teacher is not None)
    read = read_features(context, learner, images)
    head = learner.head
    assert isinstance(head, PrototypeHead)
    features = head.features(read.tokens[0])
    targets = _targets(context, learner, teacher, read.labels).to(features.dtype)
    row = {"task": context.task, "epoch": 0, "learning_rate": 0.0}
    if not head.from_sums:
        head.learn(features, targets)
        return pd.DataFrame([row | {"validation": float("nan")}]), {}, []
    sums = accumulate(memory, features, targets)
    if not head.keeps_gram:
        del sums["gram"]
    seen, n, errors = targets.shape[1], len(features), []
    if not head.ridge:
        weight, error = mean_weights(sums), float("nan")
    else:
        if n < 2:
            raise CdlError(
                f"ranpac: task {context.task} has {n} training examples; expected at least two"
            )
        order = permutation((_ORDER, context.spec.seed, context.task), n).to(features.device)
        losses = validation_losses(features[order], targets[order])
        totals = losses.double() * (n - int(FIT_SHARE * n)) * seen
        known, errors = losses, totals.tolist()
        if head.ridge_images == "all":
            known = totals + memory.get("errors", torch.zeros_like(totals)).to(totals)
            sums["errors"] = known
        best = best_ridge(known, sums["gram"])
        weight = ridge_weights(sums["gram"], sums["prototypes"], RIDGES[best])
        error = float(losses[best])
    head.weight[:seen].copy_(weight)
    return pd.DataFrame([row | {"validation": error}]), sums, errors


def solve_operations(images: int, classes: int, width: int, head: PrototypeHead) -> float:
    """Return the operations of `solve_task` without those of the backbone.

    A linear solve counts as `2 M^3 / 3 + 2 M^2 C` operations.

    Args:
        images: number of images of the task.
        classes: number of classes seen.
        width: width of a token.
        head: the head, with its weights `[C, M]`.
    """
    m, fitted = head.weight.shape[1], int(FIT_SHARE * images)
    projection = 0.0 if head.projection is None else 2.0 * images * width * m
    sums = 2.0 * images * m * (m + classes)
    if not head.ridge:
        return projection + sums
    small = min(fitted, m)  # size of the smaller system in `validation_losses`
    validation = _solve_operations(small, classes) + 2.0 * (images - fitted) * small * classes
    fit = 2.0 * (images * fitted * m if fitted < m else fitted * m * (m + classes))
    return projection + sums + fit + _solve_operations(m, classes) + len(RIDGES) * validation


def _solve_operations(m: int, classes: int) -> float:
    """Return the operations of solving a system `[m, m]` for all classes."""
    return 2 * m**3 / 3 + 2.0 * m**2 * classes


@torch.no_grad()
def _targets(
    context: TaskContext[LearnerSpec],
    learner: Learner,
    teacher: TeacherSource | None,
    labels: Tensor,
) -> Tensor:
    """Return targets `[n, seen]` from labels and the teacher's outputs.

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
