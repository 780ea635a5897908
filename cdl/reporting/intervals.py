"""Means over seeds, gains and shares of the gap to the teacher, with 95 % intervals.

`cdl.reporting.summary` adds them to the summary table, which all tables and pages show.
"""

from collections.abc import Callable, Mapping
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cdl.reporting.columns import CELL, INTERVALS
from cdl.reporting.crossed import (
    Answers,
    Interval,
    difference,
    estimate,
    holm,
    on_common_images,
    outcomes,
    over,
    paired,
    share,
)
from cdl.reporting.names import distiller_of
from cdl.reporting.style import names

SIGNIFICANT = 0.05  # of a p value after Holm's correction
CONTRASTS = [
    *("first", "second", "difference", "low", "high", "low_by_class", "high_by_class"),
    *("p", "p_holm", "seeds", "images"),
]
UNDISTILLED = "the undistilled student"  # plain `none`
CONFOUNDED = "none with few labels"
_FAMILY = ["dataset", "labels"]  # the gains of a family are corrected together

Read = Callable[[str], Answers]


def answers_of(predictions: Callable[[str], pd.DataFrame]) -> Read:
    """Return a function from a run's folder to its outcomes, which reads each run once."""

    @cache
    def answers(run: str) -> Answers:
        table = predictions(run)
        return Answers.of_table(table)

    return answers


def intervals(results: pd.DataFrame, answers: Read) -> pd.DataFrame:
    """Return the mean over seeds of every cell with its 95 % interval, see `cdl.reporting.crossed`.

    Args:
        results: finished runs from `cdl.reporting.runs.tables_of`.
        answers: maps the folder of a run to its outcomes.

    Returns:
        One row per cell, in percent and percentage points: `n` seeds; `over`, the random effects
        of the intervals (`seeds and test examples`; `test examples` with one seed); `baseline`, the
        student that a student is compared with; and, each with `_low` and `_high`:
        `accuracy` after the last task; `forgetting`, whose interval is a t interval over seeds, NaN
        with one; the `gain` over `baseline`, with `gain_p` and `gain_p_holm`,
        corrected for all gains of its dataset and label level; the `gap` from `baseline` to the
        teacher; the percentage of the gap that is `closed`, or in `not_closed` the reason why none
        is given.
        NaN if there is nothing to compare with.
    """
    known, rows = results.set_index("run"), []
    for cell, runs in results.groupby(CELL, sort=False):
        links = {"own": "run"}
        if (runs["baseline_run"] != runs["run"]).all():
            links |= {"none": "baseline_run", "teacher": "teacher_run"}
        links = {name: link for name, link in links.items() if {*runs[link]} <= {*known.index}}
        read_runs = {name: [answers(run) for run in runs[link]] for name, link in links.items()}
        named = {**dict(zip(CELL, cell, strict=True)), "n": len(runs)}
        named |= {"over": over(outcomes(read_runs["own"])), "not_closed": "", "baseline": ""}
        if "none" in links:
            named["baseline"] = distiller_of(known.loc[runs["baseline_run"].iloc[0]])
        numbers = _numbers(read_runs, runs["labels"].iloc[0] == "all")
        forgetting = estimate(runs[["forgetting_max"]].to_numpy(float)).interval
        rows.append({**named, **numbers, **_ends("forgetting", forgetting)})
    table = pd.DataFrame(rows, columns=[*CELL, "n", "over", "baseline", *INTERVALS, "not_closed"])
    corrected = table.groupby(_FAMILY, sort=False)["gain_p"].transform(lambda p: holm(p.tolist()))
    return table.assign(gain_p_holm=corrected.astype(float))


def contrasts(
    results: pd.DataFrame,
    answers: Read,
    test_images: Mapping[str, str],
    classes: Callable[[str], pd.Series],
) -> pd.DataFrame:
    """Return the paired difference of every two cells that were tested on the same images.

    Args:
        results: finished runs from `cdl.reporting.runs.tables_of`.
        answers: maps the folder of a run to its outcomes.
        test_images: maps the folder of a run to the fingerprint of its test images.
        classes: maps the folder of a run to the class of each test image, by index.

    Returns:
        One row per pair of cells, named by their folders: `difference` of the final average
        accuracies, `first` minus `second`, `low` and `high` in points, `p`, and `p_holm`, corrected
        for all pairs, over their common `seeds` and `images`; and the ends of `crossed.by_class`.
    """
    cells: dict[str, dict[int, str]] = {}
    for row in results.to_dict("records"):
        cells.setdefault(str(Path(row["run"]).parent), {})[row["seed"]] = row["run"]
    rows = []
    for (first, left), (second, right) in combinations(cells.items(), 2):
        seeds = [seed for seed in left if seed in right]
        pairs = [(left[seed], right[seed]) for seed in seeds]
        if not pairs or any(test_images[one] != test_images[other] for one, other in pairs):
            continue
        one, other = ([answers(run) for run in runs] for runs in zip(*pairs, strict=True))
        found = difference(one, other, classes(pairs[0][0]))
        rows.append((first, second, *found[:6], np.nan, found.seeds, found.images))
    table = pd.DataFrame(rows, columns=CONTRASTS)
    return table.assign(p_holm=holm(table["p"].tolist()))


def _numbers(runs: Mapping[str, list[Answers]], all_labels: bool) -> dict[str, Any]:
    """Return the numbers of a cell from its runs and the runs that it is compared with.

    With few labels, distillation is not the only cause of a gain, so no share is reported.
    """
    value, low, high = estimate(outcomes(runs["own"])).interval
    accuracy = Interval(value, max(0.0, low), min(100.0, high))  # the range of accuracies
    numbers: dict[str, Any] = _ends("accuracy", accuracy)
    if "none" not in runs:
        return numbers
    gain = difference(runs["own"], runs["none"])
    numbers |= {**_ends("gain", Interval(*gain[:3])), "gain_p": gain.p}
    if "teacher" not in runs:
        return numbers
    numbers |= _ends("gap", Interval(*difference(runs["teacher"], runs["none"])[:3]))
    closed: Interval | str = CONFOUNDED
    if all_labels:
        own, none, teacher = on_common_images(runs["own"], runs["none"], runs["teacher"])
        closed = share(paired(own, none), paired(teacher, none))
    return numbers | (
        {"not_closed": closed} if isinstance(closed, str) else _ends("closed", closed)
    )


def _ends(name: str, interval: Interval) -> dict[str, float]:
    """Return the columns of a number with its interval."""
    return dict(zip((name, f"{name}_low", f"{name}_high"), interval, strict=True))


def reading(cells: pd.DataFrame) -> str:
    """Summarise in a few sentences how distillers compare with their baselines.

    Args:
        cells: rows of `intervals` of one dataset, method and pair.
    """
    return " ".join(sentences(cells))


def sentences(cells: pd.DataFrame) -> list[str]:
    """Return the sentences of `reading`, the most important ones first."""
    words = dict(zip(cells.apply(distiller_of, axis=1), names(cells).map(_quoted), strict=True))
    cells = cells.assign(baseline=cells["baseline"].replace(words | {"none": UNDISTILLED}))
    compared = cells[cells["gain"].notna()]
    if compared.empty:
        alone = (cells.loc[cells["role"] == "student", "distiller"] == "none").all()
        lacking = "distilled student" if alone else "student without a teacher (grid.baseline)"
        return [f"No {lacking}, so there is nothing to compare."]
    rows = list(zip(names(compared).map(_quoted), compared.to_dict("records"), strict=True))
    rows.sort(key=lambda row: (row[1]["teacher"] == "", -row[1]["gain"]))
    significant = [row["gain_p_holm"] < SIGNIFICANT for _, row in rows]
    better = [
        _better(name, row)
        for (name, row), sure in zip(rows, significant, strict=True)
        if sure and row["gain"] > 0
    ]
    worse = [
        _worse(name, row)
        for (name, row), sure in zip(rows, significant, strict=True)
        if sure and row["gain"] < 0
    ]
    unsure = [
        f"{name} from {row['baseline']} ({_signed(row['gain'])} points, {_p(row)})"
        for (name, row), sure in zip(rows, significant, strict=True)
        if not sure
    ]
    if not better:
        over = " or ".join(dict.fromkeys(row["baseline"] for _, row in rows))
        better = [f"No distiller beats {over} here"]
    first, *others = better
    found = [*_confounds(compared), first, *_gap(compared.iloc[0])]
    found += [*others, *worse]
    if unsure:
        found.append(f"Not significantly different: {', '.join(unsure)}")
    return [f"{sentence}." for sentence in [*found, _legend(compared)]]


def _quoted(name: str) -> str:
    """Return the name of a row as part of a sentence."""
    return f"“{name}”" if ", " in name else name


def _better(name: str, row: Mapping[Any, Any]) -> str:
    text = f"{name} is {row['gain']:.1f} points better than {row['baseline']} "
    text += f"({row['gain_low']:.1f} to {row['gain_high']:.1f}), {_p(row)}".replace("-", "−")
    if pd.notna(row["closed"]):
        text += f", and closes {_range(row, 'closed')} of the gap to the teacher"
    return text


def _worse(name: str, row: Mapping[Any, Any]) -> str:
    lost, low, high = (-row[f"gain{end}"] for end in ("", "_high", "_low"))
    ends = f"({low:.1f} to {high:.1f}), {_p(row)}".replace("-", "−")
    return f"{name} is {lost:.1f} points worse than {row['baseline']} {ends}"


def _signed(number: float) -> str:
    return f"{number:+.1f}".replace("-", "−")


def _p(row: Mapping[Any, Any]) -> str:
    p = row["gain_p_holm"]
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _gap(row: pd.Series) -> list[str]:
    """Describe the gap between a row's baseline and the teacher, in no or one sentence."""
    if pd.isna(row["gap"]):
        return []
    over = row["baseline"]
    if not row["gap_low"] > 0:
        sure = "worse" if row["gap_high"] < 0 else "not significantly better"
        return [f"The teacher is {sure} than {over}: {_range(row, 'gap')}"]
    low, high = row["gap_low"], row["gap_high"]
    text = f"The teacher is {row['gap']:.1f} points better than {over}"
    return [f"{text} ({low:.1f} to {high:.1f})"]


def _legend(cells: pd.DataFrame) -> str:
    """Describe the intervals and p values."""
    seeds = sorted({*cells["n"]})
    n = f"{' or '.join(map(str, seeds))} seed{'s' if seeds[-1] != 1 else ''}"
    over = " or ".join(dict.fromkeys(cells["over"]))
    return (
        f"95 % intervals over {over}, {n}; p with Holm's correction for all gains on this dataset, "
        "significant below 0.05"
    )


def _confounds(compared: pd.DataFrame) -> list[str]:
    """Describe what differs besides the loss if students see few labels."""
    if (compared["labels"] == "all").all():
        return []
    return [
        "With few labels, students with a teacher can also see the examples without a label and "
        "then more views per step, and their class statistics can have other labels than those "
        "of the student that they are compared with"
    ]


def _range(row: Any, name: str) -> str:
    """Return a value of `intervals` with its interval as text."""
    form, unit = ("{:.0f}", " %") if name == "closed" else ("{:+.1f}", "")
    number, low, high = (form.format(row[f"{name}{end}"]) for end in ("", "_low", "_high"))
    return f"{number}{unit} ({low} to {high})".replace("-", "−")
