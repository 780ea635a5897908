"""Whether the results of a run are good, and what to do next, in at most four lines."""

import shlex
from collections.abc import Collection, Hashable, Mapping
from typing import Any

import pandas as pd

from cdl.reporting.columns import CELL, FEW_SEEDS
from cdl.reporting.names import distiller_of

FORGETTING = 20.0  # points, above which heads that are not aligned are pointed out
FEW_EXAMPLES = 100  # per class, below which more of them are suggested
MIN_SEEDS = 3  # with fewer, no interval over seeds is shown
BOUNDS = {"simple_cil": "class means", "ranpac": "a ridge"}  # methods that train nothing, in words


def best_cell(results: pd.DataFrame) -> pd.DataFrame:
    """Return the runs of the student with the highest mean accuracy, the first seed first.

    Without a student, these are the runs of the best learner. Students of one backbone cost about
    the same at prediction.

    Args:
        results: one row per run, see `cdl.reporting.runs.tables_of`.
    """
    students = results[results["role"] == "student"]
    students = results if students.empty else students
    means = students.groupby(CELL, sort=False)["final_average_accuracy"].transform("mean")
    best = students.iloc[int(means.to_numpy().argmax())]
    return students[(students[CELL] == best[CELL]).all(axis=1)]


def advice(
    results: pd.DataFrame,
    cells: pd.DataFrame,
    n_classes: int,
    command: str,
    unaligned: Collection[str] = (),
    embedded: Collection[str] = (),
) -> dict[str, str]:
    """Return the lines at the end of a run, by their heading.

    Args:
        results: one row per run.
        cells: one row per cell, see `cdl.reporting.intervals` and `cdl.reporting.names.named`.
        n_classes: number of classes of the best student.
        command: command that starts this program.
        unaligned: folders of the runs that train heads and do not align them.
        embedded: names of the backbones that come with cdl, which are small.
    """
    runs = best_cell(results)
    first = runs.iloc[0]
    best = cells[(cells[CELL] == first[CELL]).all(axis=1)].iloc[0].to_dict()
    same = cells[(cells["dataset"] == best["dataset"]) & (cells["labels"] == best["labels"])]
    students = same[(same["role"] == "student") & (same["backbone"] == best["backbone"])]
    found = {"Best": f"{_name(best)}, {_accuracy(best)}; {_beside(best, students, n_classes)}"}
    if taught := _taught(students):
        found["Teacher"] = taught
    per_class = first["labelled_seen"] / n_classes
    better = []
    if per_class < FEW_EXAMPLES:
        better.append(f"more examples of a class than {per_class:.0f}")
    if best["backbone"] in embedded:
        better.append(f"a pretrained ViT ({command} list backbones)")
    if forgetting := _forgetting(results[results["run"].isin(unaligned)]):
        better.append(forgetting)
    if better:
        found["Better"] = "; ".join(better)
    found["Next"] = f"{command} export {shlex.quote(str(first['run']))} -o student"
    return found


def has_interval(row: Mapping[Hashable, Any]) -> bool:
    """Return whether the intervals of a cell are shown: not those over too few seeds."""
    return bool(row["n"] >= MIN_SEEDS or "seeds" not in row["over"])


def _name(row: Mapping[Hashable, Any]) -> str:
    if is_bound(row):
        return name_of_bound(row)
    return f"{row['method']} ({row['label']})"


def name_of_bound(row: Mapping[Hashable, Any]) -> str:
    """Return the name of a method that trains nothing: `a ridge (ranpac)`."""
    return f"{BOUNDS[_method(row)]} ({row['method']})"


def is_bound(row: Mapping[Hashable, Any]) -> bool:
    """Return whether a row is that of a method that trains nothing."""
    return _method(row) in BOUNDS


def _method(row: Mapping[Hashable, Any]) -> str:
    return str(row["method"]).partition("+")[0]


def _accuracy(row: Mapping[Hashable, Any]) -> str:
    n = f"{row['n']} seed{'s' * (row['n'] > 1)}"
    if row["n"] < MIN_SEEDS:
        return f"{row['accuracy']:.1f} % ({n}: too few for an interval over seeds)"
    return f"{row['accuracy']:.1f} % ({row['accuracy_low']:.1f} to {row['accuracy_high']:.1f}, {n})"


def _beside(best: Mapping[Hashable, Any], students: pd.DataFrame, n_classes: int) -> str:
    """Return the accuracies to compare the best student with, and those that the study lacks."""
    rows = students.to_dict("records")
    found, lacking = [f"chance {100 / n_classes:.1f} %"], []
    for method, words in BOUNDS.items():
        own = [row["accuracy"] for row in rows if _method(row) == method]
        if not own:
            lacking.append(method)
        elif _method(best) != method:
            found.append(f"{words} {max(own):.1f} %")
    trained = [row for row in rows if not is_bound(row)]
    if is_bound(best) and trained:
        first = max(trained, key=lambda row: row["accuracy"])
        found.append(f"trained at best {first['accuracy']:.1f} %, {_name(first)}")
    text = ", ".join(found)
    words = " and ".join(BOUNDS[method] for method in lacking)
    return f"{text}; for {words}: grid.bounds: [{', '.join(lacking)}]" if lacking else text


def _taught(students: pd.DataFrame) -> str:
    """Say whether the best distilled student differs from the student without distillation."""
    distilled = students[(students["teacher"] != "") & students["gain"].notna()]
    if distilled.empty:
        return ""
    row = max(distilled.to_dict("records"), key=lambda own: own["accuracy"])
    name, over = _quoted(row["label"]), _quoted(baselines(students)[row["baseline"]])
    if row["n"] < MIN_SEEDS:
        return f"{name} minus {over}: {row['gain']:+.1f} points, for a claim run {FEW_SEEDS} seeds"
    points = f"{row['gain']:+.1f} points ({row['gain_low']:+.1f} to {row['gain_high']:+.1f})"
    if row["gain_low"] > 0:
        return f"{name} is better than {over}, {points}"
    shown = "is worse than" if row["gain_high"] < 0 else "is not shown to be better than"
    return f"{name} {shown} {over}, {points}: take {over} instead"


def baselines(students: pd.DataFrame) -> dict[str, str]:
    """Return the name in words of each student, by its name in the column `baseline`."""
    return {distiller_of(row): row["label"] for row in students.to_dict("records")}


def _quoted(label: str) -> str:
    return f"'{label}'" if "," in label else label


def _forgetting(runs: pd.DataFrame) -> str:
    """Name the option for heads that forget much, of runs that do not align them."""
    forgetful = runs[runs["forgetting_max"] > FORGETTING]
    if forgetful.empty:
        return ""
    points, method = forgetful["forgetting_max"].mean(), _method(forgetful.iloc[0].to_dict())
    return (
        f"aligned heads (without, {points:.0f} points are forgotten): "
        f"methods: {{{method}: {{alignment: {{preset: slca}}}}}}"
    )
