"""Metrics of an accuracy matrix, numpy only.

`R[t][i]` is the accuracy (percent) on task `i`'s test images after learning task `t`, over all
classes seen so far; entries with `i > t` are ignored.
"""

import numpy as np


def metrics(matrix: np.ndarray, counts: np.ndarray | list[int]) -> dict[str, float]:
    """Return every metric, in percent.

    Args:
        matrix: `R`, `[T, T]`.
        counts: test images of each task, `[T]`, for the sample-weighted accuracy.

    Returns:
        The metrics of the tables and, last, three forms found elsewhere. `forgetting` is first
        minus last (= -BWT), `forgetting_max` that of Chaudhry et al. (ECCV 2018),
        `forgetting_published` that of the released trainer, which divides by T;
        `forgetting_max_including_final` lets the last stage take part in the maximum,
        `forgetting_stepwise` averages the drop from each stage to the next (CODA-Prompt's).
        With one task all forgetting but the published one is NaN.
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
        "forgetting": _mean(drops),
        "forgetting_max": _mean(best - last[:-1]),
        "average_incremental_accuracy_sample_weighted": float(np.mean(weighted)),
        "forgetting_max_including_final": _mean(np.maximum(best, last[:-1]) - last[:-1]),
        "forgetting_stepwise": _mean(steps),
    }


def _mean(values: np.ndarray | list[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
