"""What a distiller gains over the undistilled student, and how sure that is."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.special import ndtri, stdtrit

from cdl.report.tables import differences

_CELL = ["dataset", "n_tasks", "method", "teacher", "student", "query", "kd", "variant"]
LEVEL = 0.95


def paired_gains(results: pd.DataFrame, predictions: Callable[[str], pd.DataFrame]) -> pd.DataFrame:
    """Average the gain in final average accuracy over seeds, with 95 % intervals.

    Args:
        results: runs from `cdl.report.tables.collect`.
        predictions: from a run's folder to its predictions, see `cdl.report.tables`.

    Returns:
        One row per distilled cell whose undistilled student exists, in percent points: `n` seeds,
        `gain`, `low`, `high` and `over`, what the interval is over: `seeds` (Student's t of the
        gains paired by seed), or `test images` where there is one seed (normal, paired by image,
        each task weighing the same: a repetition with other seeds would vary more).
    """
    table = differences(results).dropna(subset="gain_over_none")
    rows = []
    for cell, runs in table.groupby(_CELL, sort=False):
        values = runs["gain_over_none"].to_numpy()
        if len(values) > 1:
            over = "seeds"
            error = values.std(ddof=1) / np.sqrt(len(values))
            half = stdtrit(len(values) - 1, (1 + LEVEL) / 2) * error
        else:
            over = "test images"
            own, none = (predictions(runs[name].iloc[0]) for name in ("run", "none_run"))
            half = ndtri((1 + LEVEL) / 2) * _paired_error(own, none)
        mean = values.mean()
        row = {"n": len(values), "gain": mean, "low": mean - half, "high": mean + half}
        rows.append({**dict(zip(_CELL, cell, strict=True)), **row, "over": over})
    return pd.DataFrame(rows, columns=[*_CELL, "n", "gain", "low", "high", "over"])


def _paired_error(own: pd.DataFrame, other: pd.DataFrame) -> float:
    """Return the standard error, in points, of the difference of two mean task accuracies."""
    difference = own["correct"].astype(float) - other["correct"].astype(float)
    by_task = difference.groupby(own["task"])
    return float(100 * np.sqrt((by_task.var(ddof=0) / by_task.size()).sum()) / by_task.ngroups)
