"""Metrics of an accuracy matrix and of one stage's predictions, numpy only.

`R[t][i]` is the accuracy (percent) on task `i`'s test images after learning task `t`, over all
classes seen so far; entries with `i > t` are ignored.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np


def metrics(matrix: np.ndarray, counts: np.ndarray | list[int]) -> dict[str, float]:
    """Return every metric, in percent.

    Args:
        matrix: `R`, `[T, T]`.
        counts: test images of each task, `[T]`, for the sample-weighted accuracy.

    Returns:
        The metrics of the tables and, last, three forms found elsewhere. `backward_transfer` is
        the mean of last minus first accuracy over all tasks but the last (Lopez-Paz and Ranzato,
        NeurIPS 2017), negative where tasks are forgotten; `forgetting_max` the mean drop from the
        best earlier accuracy (Chaudhry et al., ECCV 2018); `forgetting_published` that of the
        released trainer, first minus last divided by T; `forgetting_max_including_final` lets the
        last stage take part in the maximum, `forgetting_stepwise` averages the drop from each
        stage to the next (CODA-Prompt's). With one task all but the published one are NaN.
    """
    r, counts = np.asarray(matrix, dtype=float), np.asarray(counts, dtype=float)
    n = len(r)
    last, learnt = r[-1], np.diag(r)
    drops = (learnt - last)[:-1]
    best = np.array([r[i : n - 1, i].max() for i in range(n - 1)])
    steps = [(r[t - 1, :t] - r[t, :t]).mean() for t in range(1, n)]
    weighted = [(r[t, : t + 1] * counts[: t + 1]).sum() / counts[: t + 1].sum() for t in range(n)]
    return {
        "final_average_accuracy": float(last.mean()),
        "last_accuracy": float(weighted[-1]),
        "average_incremental_accuracy": float(np.mean([r[t, : t + 1].mean() for t in range(n)])),
        "learning_accuracy": float(learnt.mean()),
        "forgetting_published": float(drops.sum() / n),
        "backward_transfer": _mean(-drops),
        "forgetting_max": _mean(best - last[:-1]),
        "average_incremental_accuracy_sample_weighted": float(np.mean(weighted)),
        "forgetting_max_including_final": _mean(np.maximum(best, last[:-1]) - last[:-1]),
        "forgetting_stepwise": _mean(steps),
    }


def current(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return recorded metrics by their present names.

    Until version 0.2, `forgetting` was the name of the negative backward transfer.
    """
    found = dict(recorded)
    if "forgetting" in found:
        dropped = found.pop("forgetting")
        found["backward_transfer"] = None if dropped is None else -dropped
    return found


class Columns(Protocol):
    """A table's columns by name, e.g. a data frame."""

    def __getitem__(self, name: str, /) -> Any: ...

    def __contains__(self, name: object, /) -> bool: ...


def prediction_metrics(
    table: Columns,
    classes: Sequence[str],
    tasks: int | Sequence[int],
    probabilistic: bool = True,
) -> dict[str, Any]:
    """Return what follows from one stage's predictions.

    Args:
        table: columns of `predictions.parquet`, by name; `predicted_in_task`, `probability_true`
            and `brier` may be missing.
        classes: their names in learning order.
        tasks: number of equal tasks, or the classes that each brings, see `own_task_predictions`.
        probabilistic: whether the learner's outputs are logits of probabilities; those of a ridge
            are not.

    Returns:
        `metrics`: `task_incremental_accuracy` (mean over tasks) and `calibration_error`, in
        percent; `negative_log_likelihood` in nats and `brier_score` between 0 and 2, means over
        images; None without their columns, and the last three also where outputs are no
        probabilities. `per_class`: accuracy by class, in percent; `task_confusion`: see there.
    """
    sizes = [len(classes) // tasks] * tasks if isinstance(tasks, int) else list(tasks)
    brought_by = np.repeat(np.arange(len(sizes)), sizes)
    position = {name: i for i, name in enumerate(classes)}

    def positions(column: str) -> np.ndarray:
        return np.array([position[name] for name in np.asarray(table[column])], dtype=int)

    true, predicted, owner = positions("class"), positions("predicted"), np.asarray(table["task"])
    correct, within = true == predicted, None
    if "predicted_in_task" in table:
        by_task = accuracy_by(owner, positions("predicted_in_task") == true, len(sizes))
        within = _mean(by_task)
    first, stop = _columns(sizes)
    inside = (first[owner] <= predicted) & (predicted < stop[owner])
    task_of = np.where(inside, owner, brought_by[predicted])
    by_class = zip(classes, accuracy_by(true, correct, len(classes)), strict=True)
    return {
        "metrics": {
            "task_incremental_accuracy": within,
            **_of_probabilities(table, correct, probabilistic),
        },
        "per_class": {name: None if np.isnan(x) else x for name, x in by_class},
        "task_confusion": task_confusion(owner, task_of, len(sizes)),
    }


def own_task_predictions(scores: np.ndarray, owner: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Return the best class of each image's own task, `[n]` positions (task-incremental).

    Args:
        scores: logits `[n, C]`, classes in learning order; columns of later tasks may be missing.
        owner: `[n]` the images' tasks.
        sizes: number of classes that each task brings; one that brings none, as a domain does, has
            those of all tasks before it.
    """
    first, stop = _columns(sizes)
    column = np.arange(scores.shape[1])
    inside = (column >= first[owner, None]) & (column < stop[owner, None])
    chosen: np.ndarray = np.where(inside, scores, -np.inf).argmax(1)
    return chosen


def accuracy_by(groups: np.ndarray, correct: np.ndarray, n: int) -> list[float]:
    """Return the accuracy in percent of each of `n` groups of images, NaN for an empty one."""
    hits, images = (np.bincount(groups, weight, n) for weight in (correct, None))
    with np.errstate(invalid="ignore"):
        return [float(x) for x in 100 * hits / images]


def calibration_error(probability: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """Return the expected calibration error in percent (Guo et al., ICML 2017).

    The mean distance of accuracy and probability over bins of equal width, weighed by images.

    Args:
        probability: `[n]` of the predicted class.
        correct: `[n]` whether it was right.
        bins: of the probabilities.
    """
    which = np.clip(np.ceil(probability * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(which, correct - probability.astype(float), bins)
    return float(100 * np.abs(gaps).sum() / len(probability))


def agreement(predicted: np.ndarray, other: np.ndarray) -> float:
    """Return the percentage of images with one prediction by both (Stanton et al., NeurIPS 2021).

    Args:
        predicted: `[n]` classes predicted by a student.
        other: `[n]` classes predicted for the same images by its teacher.
    """
    return float(100 * (predicted == other).mean())


def _of_probabilities(
    table: Columns, correct: np.ndarray, probabilistic: bool
) -> dict[str, float | None]:
    """Return the scores of predicted probabilities; None where there are none."""

    def column(name: str) -> np.ndarray | None:
        given = probabilistic and name in table
        return np.asarray(table[name], dtype=float) if given else None

    best, true, brier = map(column, ("probability", "probability_true", "brier"))
    least = np.finfo(float).tiny
    return {
        "calibration_error": None if best is None else calibration_error(best, correct),
        "negative_log_likelihood": None
        if true is None
        else float(-np.log(np.maximum(true, least)).mean()),
        "brier_score": None if brier is None else float(brier.mean()),
    }


def task_confusion(owner: np.ndarray, predicted: np.ndarray, n: int) -> list[list[int]]:
    """Count images `[n, n]` by their task (row) and the task of the predicted class (column)."""
    counts = np.bincount(owner * n + predicted, minlength=n * n)
    return [[int(x) for x in row] for row in counts.reshape(n, n)]


def _columns(sizes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the first column of each task and the one behind its last."""
    stop = np.cumsum(sizes)
    return np.where(np.array(sizes) > 0, stop - np.array(sizes), 0), stop


def _mean(values: np.ndarray | list[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
