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
        `forgetting` is first minus last (= -BWT), `forgetting_max` that of Chaudhry et al.
        (ECCV 2018), `forgetting_published` that of the released trainer, which divides by T.
        With one task the first two are NaN.
    """
    r, counts = np.asarray(matrix, dtype=float), np.asarray(counts, dtype=float)
    n = len(r)
    last, learnt = r[-1], np.diag(r)
    drops = (learnt - last)[:-1]
    best = np.array([r[i : n - 1, i].max() for i in range(n - 1)])
    return {
        "final_average_accuracy": float(last.mean()),
        "last_accuracy": float((last * counts).sum() / counts.sum()),
        "average_incremental_accuracy": float(np.mean([r[t, : t + 1].mean() for t in range(n)])),
        "learning_accuracy": float(learnt.mean()),
        "forgetting_published": float(drops.sum() / n),
        "forgetting": float(drops.mean()) if n > 1 else float("nan"),
        "forgetting_max": float((best - last[:-1]).mean()) if n > 1 else float("nan"),
    }
