"""Means over seeds, gains and shares of the gap to the teacher, with 95 % intervals.

`cdl.reporting.summary` adds them to the summary table, which tables and pages show.
"""

from collections.abc import Callable, Mapping
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cdl.evaluation.predictions import classes_of
from cdl.reporting.columns import CELL, INTERVALS
from cdl.reporting.crossed import (
    Interval,
    Outcomes,
    difference,
    estimate,
    holm,
    on_common_images,
    outcome_matrix,
    paired,
    share,
    varies_over,
)

CONTRASTS = [
    *("first", "second", "difference", "low", "high", "low_by_class", "high_by_class"),
    *("p", "p_holm", "seeds", "images"),
]
CONFOUNDED = "none with few labels"
_FAMILY = ["dataset", "labels"]  # the gains of a family are corrected together

Predictions = Callable[[str], pd.DataFrame]  # of a finished run, by its folder


def intervals(results: pd.DataFrame, predictions: Predictions) -> pd.DataFrame:
    """Return the mean over seeds of every cell with its 95 % interval, see `cdl.reporting.crossed`.

    Args:
        results: finished runs from `cdl.reporting.runs.tables_of`.
        predictions: maps the folder of a run to its predictions, which are read once.

    Returns:
        One row per cell, in percent and percentage points: `over`, the random effects of the
        intervals (`seeds and test examples`; `test examples` with one seed); and, each with `_low`
        and `_high`: `accuracy` after the last task; `forgetting`, whose interval is a t interval
        over seeds, NaN with one; the `gain` over the baseline, with `gain_p` and `gain_p_holm`,
        corrected for all gains of its dataset and label level; the `gap` from the baseline to the
        teacher; the percentage of the gap that is `closed`, or in `not_closed` the reason why none
        is given.
        NaN if there is nothing to compare with.
    """
    outcomes = cache(lambda run: Outcomes.of_table(predictions(run)))
    finished, rows = {*results["run"]}, []
    for cell, runs in results.groupby(CELL, sort=False):
        links = {"own": "run"}
        if (runs["baseline_run"] != runs["run"]).all():
            links |= {"baseline": "baseline_run", "teacher": "teacher_run"}
        links = {name: link for name, link in links.items() if {*runs[link]} <= finished}
        sides = {name: [outcomes(run) for run in runs[link]] for name, link in links.items()}
        row = dict(zip(CELL, cell, strict=True)) | {"not_closed": ""}
        row |= {"over": varies_over(outcome_matrix(sides["own"]))}
        row |= _numbers(sides, runs["labels"].iloc[0] == "all")
        forgetting = estimate(runs[["forgetting_max"]].to_numpy(float)).interval
        rows.append(row | _ends("forgetting", forgetting))
    table = pd.DataFrame(rows, columns=[*CELL, "over", *INTERVALS, "not_closed"])
    corrected = table.groupby(_FAMILY, sort=False)["gain_p"].transform(lambda p: holm(p.tolist()))
    return table.assign(gain_p_holm=corrected.astype(float))


def contrasts(
    results: pd.DataFrame, predictions: Predictions, test_images: Mapping[str, str]
) -> pd.DataFrame:
    """Return the paired difference of every two cells that were tested on the same images.

    Args:
        results: finished runs from `cdl.reporting.runs.tables_of`.
        predictions: maps the folder of a run to its predictions.
        test_images: maps the folder of a run to the fingerprint of its test images.

    Returns:
        One row per pair of cells, named by their folders: `difference` of the final average
        accuracies, `first` minus `second`, `low` and `high` in points, `p`, and `p_holm`, corrected
        for all pairs, over their common `seeds` and `images`; and the ends of `crossed.by_class`.
    """
    outcomes = cache(lambda run: Outcomes.of_table(predictions(run)))
    classes = cache(lambda run: classes_of(predictions(run)))
    cells: dict[str, dict[int, str]] = {}
    for row in results.to_dict("records"):
        cells.setdefault(str(Path(row["run"]).parent), {})[row["seed"]] = row["run"]
    rows = []
    for (first, left), (second, right) in combinations(cells.items(), 2):
        seeds = [seed for seed in left if seed in right]
        pairs = [(left[seed], right[seed]) for seed in seeds]
        if not pairs or any(test_images[one] != test_images[other] for one, other in pairs):
            continue
        one, other = ([outcomes(run) for run in runs] for runs in zip(*pairs, strict=True))
        minus = difference(one, other, classes(pairs[0][0]))
        rows.append((first, second, *minus[:6], np.nan, minus.seeds, minus.images))
    table = pd.DataFrame(rows, columns=CONTRASTS)
    return table.assign(p_holm=holm(table["p"].tolist()))


def _numbers(runs: Mapping[str, list[Outcomes]], all_labels: bool) -> dict[str, Any]:
    """Return the numbers of a cell from its runs and the runs that it is compared with.

    With few labels, distillation is not the only cause of a gain, so no share is reported.
    """
    value, low, high = estimate(outcome_matrix(runs["own"])).interval
    accuracy = Interval(value, max(0.0, low), min(100.0, high))  # the range of accuracies
    numbers: dict[str, Any] = _ends("accuracy", accuracy)
    if "baseline" not in runs:
        return numbers
    gain = difference(runs["own"], runs["baseline"])
    numbers |= {**_ends("gain", Interval(*gain[:3])), "gain_p": gain.p}
    if "teacher" not in runs:
        return numbers
    numbers |= _ends("gap", Interval(*difference(runs["teacher"], runs["baseline"])[:3]))
    closed: Interval | str = CONFOUNDED
    if all_labels:
        own, baseline, teacher = on_common_images(runs["own"], runs["baseline"], runs["teacher"])
        closed = share(paired(own, baseline), paired(teacher, baseline))
    return numbers | (
        {"not_closed": closed} if isinstance(closed, str) else _ends("closed", closed)
    )


def _ends(name: str, interval: Interval) -> dict[str, float]:
    """Return the columns of a number with its interval."""
    return dict(zip((name, f"{name}_low", f"{name}_high"), interval, strict=True))
