"""Tables as LaTeX with booktabs: the summary for a paper, two columns of text wide, and others."""

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from cdl.reporting.columns import NOT_RUN
from cdl.reporting.names import dataset_names, distiller_of, method_of
from cdl.reporting.panels import of_dataset, panels_of
from cdl.reporting.text import INTERVAL, either
from cdl.runtime.artifacts import write_text
from cdl.runtime.errors import CdlError

Row = Mapping[Hashable, Any]


class Column(NamedTuple):
    """A column of the table: heading, LaTeX of a row, and what the caption says about it."""

    heading: str
    text: Callable[[Row], str]
    meaning: str = ""


def _mean(name: str) -> Callable[[Row], str]:
    """Return a function to the mean and standard deviation of a metric."""

    def text(row: Row) -> str:
        mean, deviation = row[f"{name}_mean"], row[f"{name}_std"]
        if pd.isna(mean):
            return "--"
        return f"${mean:.2f}$" if pd.isna(deviation) else rf"${mean:.2f} \pm {deviation:.2f}$"

    return text


def _interval(name: str, form: str) -> Callable[[Row], str]:
    """Return a function to an estimate with its interval."""

    def text(row: Row) -> str:
        value, *ends = (row.get(f"{name}{end}", float("nan")) for end in ("", "_low", "_high"))
        if pd.isna(value):
            return "--"
        return f"${value:{form}}$ $[{', '.join(f'{x:{form}}' for x in ends)}]$"

    return text


COLUMNS = {
    "accuracy": Column(
        r"accuracy (\%)",
        _mean("final_average_accuracy"),
        "Accuracy: mean over all tasks after the last one",
    ),
    "forgetting": Column(
        "forgetting",
        _mean("forgetting_max"),
        "Forgetting: mean drop of earlier tasks from their best accuracy, in points",
    ),
    "gain": Column("gain", _interval("gain", "+.2f")),
    "gap": Column(
        "gap to teacher",
        _mean("gap_to_teacher"),
        "Gap: accuracy of the teacher minus that of the student, in points",
    ),
    "closed": Column(
        r"gap closed (\%)",
        _interval("closed", ".0f"),
        "Gap closed: share of the gap between the undistilled student and the teacher",
    ),
    "last": Column(
        r"last accuracy (\%)",
        _mean("last_accuracy"),
        "Last accuracy: over all test examples after the last task",
    ),
    "incremental": Column(
        r"average incremental (\%)",
        _mean("average_incremental_accuracy"),
        "Average incremental: mean of the accuracy after each task",
    ),
    "task_incremental": Column(
        r"task-incremental (\%)",
        _mean("task_incremental_accuracy"),
        "Task-incremental: among the classes of the example's own task",
    ),
    "calibration": Column(
        r"calibration error (\%)",
        _mean("calibration_error"),
        "Calibration error: with 15 bins",
    ),
    "parameters": Column(
        "parameters", lambda row: f"{row['trainable_parameters']:,.0f}", "Parameters: trained ones"
    ),
    "seeds": Column("seeds", lambda row: str(row["n"])),
}
DEFAULT = ("accuracy", "forgetting", "gain")
WIDEST = 5  # columns of numbers that fit two columns of a paper
_LONG = 14  # characters of a heading


def columns_of(text: str) -> list[str]:
    """Return the columns in a list such as `accuracy,gain`.

    Raises:
        CdlError: a column does not exist, is repeated, or there are more than `WIDEST`.
    """
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in COLUMNS:
            known = ", ".join(COLUMNS)
            raise CdlError(f"--columns: invalid value {name!r}; expected some of {known}")
    if len({*names}) < len(names) or len(names) > WIDEST:
        raise CdlError(
            f"--columns: invalid value {text!r}; expected at most {WIDEST} different columns, "
            "which fit the page of a paper"
        )
    return names


def write_latex(
    results: pd.DataFrame,
    table: pd.DataFrame,
    path: str | Path,
    columns: Sequence[str] = DEFAULT,
) -> None:
    """Write the means of all learners, in blocks of one dataset, method and pair.

    Args:
        results: runs of the table, which name the datasets.
        table: the summary table, from `cdl.reporting.summary.summarise`.
        path: file to write.
        columns: names in `COLUMNS`.
    """
    lines = _blocks(results, table, columns)
    heads = " & ".join(["", *(_stacked(COLUMNS[name].heading) for name in columns)])
    text = [
        r"% \usepackage{booktabs}",
        r"\begin{table*}[t]",
        r"\centering\small\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{_caption(table, columns)}}}\label{{tab:results}}\smallskip",
        *_tabular("tabular", f"l{'r' * len(columns)}", [heads], lines),
        r"\end{table*}",
    ]
    write_text(path, "\n".join(text) + "\n")


def longtable(table: pd.DataFrame, note: str, caption: str) -> str:
    """Return a table of text with two levels of columns as LaTeX, with the note as a comment."""
    columns: Any = table.columns.tolist()
    groups = [(name, len(list(own))) for name, own in groupby(first for first, _ in columns)]
    heads = [
        " & ".join(rf"\multicolumn{{{n}}}{{c}}{{{name}}}" for name, n in groups),
        " & ".join(escape(name) for _, name in columns),
    ]
    rows = [" & ".join(map(escape, row)) for row in table.itertuples(index=False, name=None)]
    lines = [r"\midrule\endhead", *(rf"{row} \\" for row in rows)]
    text = [
        r"% \usepackage{booktabs, longtable}",
        f"% {note}",
        *_tabular("longtable", "l" * len(columns), heads, lines, escape(caption)),
    ]
    return "\n".join(text).replace("±", r"$\pm$") + "\n"


def _tabular(
    environment: str, columns: str, heads: Sequence[str], lines: Sequence[str], caption: str = ""
) -> list[str]:
    """Return the lines of a table between its rules."""
    return [
        rf"\begin{{{environment}}}{{{columns}}}",
        *([rf"\caption{{{caption}}} \\"] if caption else []),
        r"\toprule",
        *(rf"{head} \\" for head in heads),
        *lines,
        r"\bottomrule",
        rf"\end{{{environment}}}",
    ]


def _stacked(heading: str) -> str:
    """Return a long heading in two lines, so that five columns fit the page."""
    first, _, rest = heading.partition(" ")
    if len(heading) <= _LONG or not rest:
        return heading
    return rf"\shortstack[r]{{{first}\\{rest}}}"


def _blocks(results: pd.DataFrame, table: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """Return the lines of all learners, in blocks with a heading."""
    lines, names = [], dataset_names(results)
    for dataset, named in names.items():
        for panel in panels_of(of_dataset(dataset, results, table)):
            rows = panel.rows.to_dict("records")
            student = next(row for row in rows if row["role"] == "student")
            taught = next((row for row in rows if row["teacher"]), student)
            pair = f", {taught['teacher']} to {taught['backbone']}" if taught["teacher"] else ""
            text = f"{method_of(student)} on {named}{pair}"
            heading = rf"\multicolumn{{{len(columns) + 1}}}{{l}}{{\textit{{{escape(text)}}}}}"
            lines += [r"\midrule", rf"{heading} \\"]
            lines += [rf"{' & '.join(_texts(row, columns))} \\" for row in rows]
    return lines


def _texts(row: Row, columns: Sequence[str]) -> list[str]:
    name = "teacher" if row["role"] == "teacher" else distiller_of(row)
    numbers = [COLUMNS[column].text(row) if row["n"] else NOT_RUN for column in columns]
    return [escape(name), *numbers]


def _caption(table: pd.DataFrame, columns: Sequence[str]) -> str:
    """Return what the columns, deviations and intervals mean."""
    parts = [COLUMNS[name].meaning for name in columns if COLUMNS[name].meaning]
    seeds = sorted({*table["n"]} - {0})
    if seeds and seeds[-1] > 1:
        n = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        parts.append(rf"After $\pm$: sample standard deviation over {n} seeds")
    baseline = either(table.loc[table["gain"].notna(), "baseline"])
    if "gain" in columns and baseline:
        parts.append(f"Gain: in points over {escape(baseline)}, paired by seed and test example")
    if {"gain", "closed"} & {*columns} and (table["n"] > 0).any():
        parts.append(f"In brackets: {escape(INTERVAL)} {either(table['over'])}")
    return ". ".join([*parts, ""]).strip()


def escape(text: str) -> str:
    """Return text with the special characters of LaTeX escaped."""
    words = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return re.sub(r"[\\~^&%$#_{}]", lambda match: words.get(match[0], "\\" + match[0]), text)
