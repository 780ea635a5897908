"""Metrics of an accuracy matrix and of predictions. Needs only numpy.

`R[t][i]` is the accuracy (percent) on task `i`'s test images after learning task `t`, among all
classes seen so far; entries with `i > t` are ignored.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np


def metrics(matrix: np.ndarray, counts: np.ndarray | list[int]) -> dict[str, float]:
    """Return all metrics of an accuracy matrix, in percent.

    Args:
        matrix: `R`, `[T, T]`.
        counts: number of test images of each task, `[T]`, for the sample-weighted accuracy.

    Returns:
        The metrics of the tables, followed by three variants from the literature.
        `backward_transfer` is the mean of last minus first accuracy over all tasks but the last
        (Lopez-Paz and Ranzato, NeurIPS 2017); it is negative if tasks are forgotten.
        `forgetting_max` is the mean drop from the best earlier accuracy (Chaudhry et al., ECCV
        2018). `forgetting_published` is the form of the released trainer: the sum of first minus
        last accuracy, divided by T. `forgetting_max_including_final` includes the last stage in the
        maximum. `forgetting_stepwise` is the mean drop from each stage to the next (CODA-Prompt).
        With one task all forms of forgetting and transfer but the published one are NaN.
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


def negative_flips(correct: Sequence[np.ndarray]) -> float:
    """Return the share of answers that an update breaks, in percent; NaN for one task.

    It is the negative flip rate (Yan et al., CVPR 2021): the images that were right before an
    update and are wrong after it, among the images of earlier tasks, as a mean over updates.

    Args:
        correct: for each task, whether the predictions after it are correct, for the images of all
            tasks up to it, in one order.
    """
    pairs = zip(correct[:-1], correct[1:], strict=True)
    return _mean([100 * float((was & ~now[: len(was)]).mean()) for was, now in pairs])


def separation(known: np.ndarray, unknown: np.ndarray) -> dict[str, float]:
    """Return how well a score tells known from unknown classes, in percent; NaN without images.

    Args:
        known: scores of images of known classes, `[n]`; higher ones mean known.
        unknown: scores of images of other classes, `[m]`.

    Returns:
        `auroc`: the probability that a known image has the higher score (ties count half).
        `fpr95`: the share of unknown images that pass the threshold that 95 % of the known ones
        pass (Hendrycks and Gimpel, ICLR 2017).
    """
    if not (len(known) and len(unknown)):
        return {"auroc": float("nan"), "fpr95": float("nan")}
    ranked = np.sort(known)
    below = np.mean(
        [np.searchsorted(ranked, unknown, "left"), np.searchsorted(ranked, unknown, "right")]
    )
    threshold = np.quantile(known, 0.05, method="lower")
    return {
        "auroc": float(100 * (1 - below / len(known))),
        "fpr95": float(100 * (unknown >= threshold).mean()),
    }


class Columns(Protocol):
    """A table with columns by name, such as a data frame."""

    def __getitem__(self, name: str, /) -> Any: ...

    def __contains__(self, name: object, /) -> bool: ...


def prediction_metrics(
    table: Columns,
    classes: Sequence[str],
    tasks: int | Sequence[int],
    probabilistic: bool = True,
) -> dict[str, Any]:
    """Return metrics of the predictions after one task.

    Args:
        table: columns of `predictions.parquet`, by name; `predicted_in_task`, `probability_true`
            and `brier` can be missing.
        classes: names of the classes in learning order.
        tasks: number of equal tasks, or number of new classes of each task, see
            `own_task_predictions`.
        probabilistic: whether the learner's outputs are logits; those of a ridge regression are
            not.

    Returns:
        `metrics`: `task_incremental_accuracy` (mean over tasks) and `calibration_error`, in
        percent; `negative_log_likelihood` in nats and `brier_score` between 0 and 2, means over
        images; None if their columns are missing, and the last three also if `probabilistic` is
        False. `per_class`: accuracy by class, in percent. `task_confusion`: see `task_confusion`.
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
    """Return the most likely class of each image's own task, `[n]` (task-incremental).

    Args:
        scores: logits `[n, C]`, classes in learning order; columns of later tasks can be missing.
        owner: `[n]` tasks of the images.
        sizes: number of new classes of each task; a task without new classes, such as a domain,
            has the classes of all previous tasks.
    """
    first, stop = _columns(sizes)
    column = np.arange(scores.shape[1])
    inside = (column >= first[owner, None]) & (column < stop[owner, None])
    chosen: np.ndarray = np.where(inside, scores, -np.inf).argmax(1)
    return chosen


def accuracy_by(groups: np.ndarray, correct: np.ndarray, n: int) -> list[float]:
    """Return the accuracy of `n` groups of images in percent; NaN for an empty group."""
    hits, images = (np.bincount(groups, weight, n) for weight in (correct, None))
    with np.errstate(invalid="ignore"):
        return [float(x) for x in 100 * hits / images]


def calibration_error(probability: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """Return the expected calibration error in percent (Guo et al., ICML 2017).

    It is the mean distance between accuracy and probability over bins of equal width, weighted by
    the number of images.

    Args:
        probability: `[n]` probabilities of the predicted classes.
        correct: `[n]` whether the predictions are correct.
        bins: number of bins.
    """
    which = np.clip(np.ceil(probability * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(which, correct - probability.astype(float), bins)
    return float(100 * np.abs(gaps).sum() / len(probability))


def agreement(predicted: np.ndarray, other: np.ndarray) -> float:
    """Return the percentage of images with equal predictions.

    This is the top-1 agreement of Stanton et al. (NeurIPS 2021).

    Args:
        predicted: `[n]` classes predicted by a student.
        other: `[n]` classes predicted by its teacher, for the same images.
    """
    return float(100 * (predicted == other).mean())


def _of_probabilities(
    table: Columns, correct: np.ndarray, probabilistic: bool
) -> dict[str, float | None]:
    """Return the metrics of predicted probabilities; None if there are none."""

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
    """Count images by task (row) and task of the predicted class (column), `[n, n]`."""
    counts = np.bincount(owner * n + predicted, minlength=n * n)
    return [[int(x) for x in row] for row in counts.reshape(n, n)]


def _columns(sizes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the first column of each task and the column after its last one."""
    stop = np.cumsum(sizes)
    return np.where(np.array(sizes) > 0, stop - np.array(sizes), 0), stop


def _mean(values: np.ndarray | list[float]) -> float:
    """Return the mean, NaN without values."""
    return float(np.mean(values)) if len(values) else float("nan")
