"""What every cell reaches and what a distiller gains, and how sure that is."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pandas as pd

from cdl.report.style import names
from cdl.runtime.artifacts import write_json
from cdl.tables.bootstrap import Answers, accuracies, interval
from cdl.tables.costs import RunFiles
from cdl.tables.runs import (
    CELL,
    INTERVALS,
    read,
    read_predictions,
    write,
    write_summary,
)

OVER_IMAGES, OVER_BOTH = "test images", "seeds and test images"


def intervals(results: pd.DataFrame, predictions: Callable[[str], pd.DataFrame]) -> pd.DataFrame:
    """Return the means over seeds that stand for a cell, each with its 95 % interval.

    Args:
        results: finished runs from `cdl.tables.runs.collect`.
        predictions: from a run's folder to its predictions, see `cdl.tables.runs`.

    Returns:
        One row per cell, in percent and percent points: `n` seeds, `over` what the intervals are
        (`seeds and test images`, or `test images` where there is one seed, see
        `cdl.tables.bootstrap`), and each with `_low` and `_high`: `accuracy` after the last task;
        of distilled students the `gain` over the undistilled one; the `gap` from that one to
        the teacher; the percentage of the gap that is `closed`, NaN unless the gap's interval is
        above zero. NaN is what has nothing to compare with.
    """
    known = {*results["run"]}

    @cache
    def answers(run: str) -> Answers:
        table = predictions(run)
        return Answers(*(table[name].to_numpy() for name in Answers._fields))

    rows = []
    for cell, runs in results.groupby(CELL, sort=False):
        links = {"own": "run"}
        if (runs["teacher"] != "").all():
            links |= {"none": "none_run", "teacher": "teacher_run"}
        links = {who: link for who, link in links.items() if {*runs[link]} <= known}
        seeds = [
            {who: answers(row[link]) for who, link in links.items()} for _, row in runs.iterrows()
        ]
        over = OVER_BOTH if len(seeds) > 1 else OVER_IMAGES
        named = {**dict(zip(CELL, cell, strict=True)), "n": len(seeds), "over": over}
        rows.append({**named, **_numbers(seeds)})
    return pd.DataFrame(rows, columns=[*CELL, "n", "over", *INTERVALS])


def write_summary_and_intervals(
    tables: Any, outputs: Any, files: Callable[[str], RunFiles]
) -> None:
    """Write the summary of finished runs and the intervals of its means.

    Args:
        tables: paths of `results` and its record `protocols`.
        outputs: paths of the summary as `csv`, `md` and `tex`, of the `intervals`, and of the
            `record` that vouches for all of them.
        files: from a run's folder to its files.
    """
    results = read(tables.results, tables.protocols)
    write_summary(results, outputs.csv, outputs.md, outputs.tex)
    write(intervals(results, lambda run: read_predictions(files(run))), outputs.intervals)
    vouched = [outputs.csv, outputs.md, outputs.tex, outputs.intervals]
    write_json(outputs.record, {}, files=vouched)


def _numbers(seeds: list[dict[str, Answers]]) -> dict[str, float]:
    """Return the columns of a cell from its answers and those of whom it is compared with."""
    drawn = accuracies(seeds)
    found = {"accuracy": interval(drawn["own"])}
    if "none" in drawn:
        gain = drawn["own"] - drawn["none"]
        found["gain"] = interval(gain)
        if "teacher" in drawn:
            gap = drawn["teacher"] - drawn["none"]
            found["gap"] = interval(gap)
            if found["gap"].low > 0:
                found["closed"] = interval(100 * gain / gap)
    return {
        f"{name}{end}": number
        for name, numbers in found.items()
        for end, number in zip(("", "_low", "_high"), numbers, strict=True)
    }


def reading(cells: pd.DataFrame) -> str:
    """Return in one sentence what distillation did, of every distiller in the table's order.

    Args:
        cells: rows of `intervals` of one dataset, method and pair.
    """
    distilled = cells[cells["gain"].notna()]
    if distilled.empty:
        return "No distilled student stands beside an undistilled one, so nothing is compared."
    first = distilled.iloc[0]
    n = f"{first['n']} seed{'s' if first['n'] != 1 else ''}"
    sure = distilled["closed"].notna().all()
    numbers = [
        f"{name} {_range(row, 'closed' if sure else 'gain')}"
        for name, row in zip(names(distilled), distilled.to_dict("records"), strict=True)
    ]
    told = f"{', '.join(numbers)}; 95 % intervals, {n}."
    if sure:
        gap = f"{first['gap']:.1f} points between undistilled student and teacher"
        return f"Of the {gap}, distillation closes: {told}"
    gains = f"points gained over the undistilled student: {told}"
    if pd.isna(first["gap"]):
        return gains[0].upper() + gains[1:]
    return f"The teacher is not surely better than a student alone, {_range(first, 'gap')}; {gains}"


def _range(row: Any, name: str) -> str:
    """Return a number of `intervals` with its interval, in words."""
    form, unit = ("{:.0f}", " %") if name == "closed" else ("{:+.1f}", "")
    number, low, high = (form.format(row[f"{name}{end}"]) for end in ("", "_low", "_high"))
    return f"{number}{unit} ({low} to {high})".replace("-", "−")
