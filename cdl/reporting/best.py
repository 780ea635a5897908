"""The best student of a study, what it has to be compared with, and whether a teacher helps."""

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from cdl.reporting.columns import CELL, FEW_SEEDS
from cdl.reporting.names import distiller_of
from cdl.reporting.panels import of_dataset
from cdl.reporting.text import ends, number, seeds

MIN_SEEDS = 3  # with fewer, no interval over seeds is shown
BOUNDS = {"simple_cil": "class means", "ranpac": "a ridge"}  # methods that train nothing, in words
_DATA = ["labels", "backbone"]  # with the dataset: equal for students that are compared


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


def judgement(results: pd.DataFrame, cells: pd.DataFrame, n_classes: int) -> dict[str, str]:
    """Return the best student beside its bounds, and whether a teacher helps, by heading.

    Args:
        results: one row per run.
        cells: one row per cell, see `cdl.reporting.intervals` and `cdl.reporting.names.named`.
        n_classes: number of classes of the best student.
    """
    lines = {"Best": best_line(results, cells, n_classes)}
    if taught := _taught(_compared(results, cells)[1]):
        lines["Teacher"] = taught
    return lines


def best_line(results: pd.DataFrame, cells: pd.DataFrame, n_classes: int) -> str:
    """Return the best student beside its bounds; arguments as in `judgement`."""
    best, students = _compared(results, cells)
    return f"{full_name(best)}, {_accuracy(best)}; {_beside(best, students, n_classes)}"


def _compared(
    results: pd.DataFrame, cells: pd.DataFrame
) -> tuple[dict[Hashable, Any], pd.DataFrame]:
    """Return the cell of the best student, and the cells of all students on its data."""
    first = best_cell(results).iloc[0]
    cells = of_dataset(first["dataset"], results, cells)
    best = cells[(cells[CELL] == first[CELL]).all(axis=1)].iloc[0].to_dict()
    students = cells[cells["role"] == "student"]
    return best, students[(students[_DATA] == first[_DATA]).all(axis=1)]


def base_of(method: str) -> str:
    """Return the name of a method in a table without its variant."""
    return method.partition("+")[0]


def full_name(row: Mapping[Hashable, Any]) -> str:
    """Return the name in words of a row, with that of its method."""
    bound = BOUNDS.get(base_of(row["method"]))
    return f"{bound} ({row['method']})" if bound else f"{row['method']} ({row['label']})"


def _accuracy(row: Mapping[Hashable, Any]) -> str:
    n, accuracy = seeds(row["n"]), f"{number(row['accuracy'])} %"
    if row["n"] < MIN_SEEDS:
        return f"{accuracy} ({n}: too few for an interval over seeds)"
    return f"{accuracy} ({ends(row, 'accuracy')}, {n})"


def _beside(best: Mapping[Hashable, Any], students: pd.DataFrame, n_classes: int) -> str:
    """Return the accuracies to compare the best student with, and those that the study lacks."""
    methods = students["method"].map(base_of)
    highest = students.groupby(methods)["accuracy"].max()
    compared = [f"chance {100 / n_classes:.1f} %"]
    compared += [
        f"{words} {highest[method]:.1f} %"
        for method, words in BOUNDS.items()
        if method in highest and method != base_of(best["method"])
    ]
    trained = students[~methods.isin([*BOUNDS])].to_dict("records")
    if base_of(best["method"]) in BOUNDS and trained:
        row = max(trained, key=lambda cell: cell["accuracy"])
        compared.append(f"trained at best {row['accuracy']:.1f} %, {full_name(row)}")
    text, lacking = ", ".join(compared), [method for method in BOUNDS if method not in highest]
    words = " and ".join(BOUNDS[method] for method in lacking)
    return f"{text}; for {words}: grid.bounds: [{', '.join(lacking)}]" if lacking else text


def _taught(students: pd.DataFrame) -> str:
    """Say whether the best distilled student differs from the student without distillation."""
    distilled = students[(students["teacher"] != "") & students["gain"].notna()]
    if distilled.empty:
        return ""
    row = max(distilled.to_dict("records"), key=lambda cell: cell["accuracy"])
    name, over = (
        f"'{label}'" if "," in label else label
        for label in (row["label"], labels_of(students)[row["method"], row["baseline"]])
    )
    points = f"{number(row['gain'], '+.1f')} points"
    if row["n"] < MIN_SEEDS:
        return f"{name} minus {over}: {points}, for a claim run {FEW_SEEDS} seeds"
    points += f" ({ends(row, 'gain', '+.1f')})"
    if row["gain_low"] > 0:
        return f"{name} is better than {over}, {points}"
    shown = "is worse than" if row["gain_high"] < 0 else "is not shown to be better than"
    return f"{name} {shown} {over}, {points}: take {over} instead"


def labels_of(students: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Return the name in words of each student, by its method and its name as a baseline."""
    rows = students.to_dict("records")
    return {(row["method"], distiller_of(row)): row["label"] for row in rows}
