"""Label efficiency: final average accuracy against the number of labels per class."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from cdl.layout import IMAGES, RunFiles
from cdl.reporting.columns import CELL
from cdl.reporting.names import method_of, names, taught_by
from cdl.reporting.panels import HeldOut
from cdl.reporting.style import (
    about,
    canvas,
    draw_band,
    embedded,
    legend,
    look,
    nothing,
    paper,
    save,
)
from cdl.reporting.tables import read, write
from cdl.reporting.text import INTERVAL, as_markdown, either, ends, number
from cdl.runtime.artifacts import read_json, write_json, write_text

NUMBERS = ["n", "over", "accuracy", "accuracy_low", "accuracy_high"]
PANEL = ["method", "teacher", "student", "teacher_saw", "dataset_block"]
_SAW = {"all": "all labels", "same": "the same labels", "": "no teacher"}


def label_efficiency(
    runs: pd.DataFrame,
    cells: pd.DataFrame,
    protocols: Mapping[str, Any],
    dataset: str,
    levels: Mapping[str, float],
) -> pd.DataFrame:
    """Return the accuracy of every learner by its number of labels.

    Args:
        runs: runs of a configuration, from `cdl.reporting.runs.tables_of`.
        cells: from `cdl.reporting.intervals`.
        protocols: the resolved protocol of each hash in the runs.
        dataset: common name of the variants with few labels.
        levels: position of each level on the axis by its name, in ascending order.

    Returns:
        One row per panel, learner and level. `PANEL`: method, pair, the labels that the teacher
        saw (`all`, or the `same` as its student) and, as JSON, the other settings of the variant.
        `labels`: level of the student, which is also used for the teacher and the undistilled
        student that it is compared with. `position`: of the level on the axis. `NUMBERS`: those of
        `cells`, in percent.
    """
    known = runs.merge(cells[[*CELL, *NUMBERS]], on=CELL).assign(learner=names)
    by_run = {row["run"]: row for row in known.to_dict("records")}
    students = known[(known["dataset"].str.partition("+")[0] == dataset)]
    students = students[students["role"] == "student"].drop_duplicates(CELL)
    taught = {*students.loc[students["teacher"] != "", "method"]}
    rows = []
    for row in students.to_dict("records"):
        undistilled = not row["teacher"] and row["distiller"] == "none"
        if undistilled and row["method"] in taught:
            continue  # added below with the students that are compared with it
        block = _settings(protocols[row["protocol"]]["dataset"])
        panel = (method_of(row), taught_by(row), row["backbone"])
        for saw in _seen_by_teacher(row):
            values = (*panel, saw, json.dumps(block, sort_keys=True))
            at = {"labels": row["labels"], "position": levels.get(row["labels"])}
            named = dict(zip(PANEL, values, strict=True)) | at
            compared = [
                by_run[r] for r in (row["teacher_run"], row["baseline_run"], row["run"]) if r
            ]
            rows += [{**named, **{k: r[k] for k in ("learner", *NUMBERS)}} for r in compared]
    table = pd.DataFrame(rows, columns=[*PANEL, "learner", "labels", "position", *NUMBERS])
    table = table.dropna(subset="position").drop_duplicates([*PANEL, "learner", "labels"])
    few = table.groupby([*PANEL, "learner"])["labels"].transform(
        lambda labels: (labels != "all").any()
    )
    return table[few.astype(bool)]


def _settings(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a dataset that are the same at all levels of labels."""
    block = {k: v for k, v in dataset.items() if k not in ("labels", "teacher_labels")}
    labels = (dataset["labels"] or {}).items()
    same = {k: v for k, v in labels if k not in ("per_class", "fraction")}
    return block | {"labels": same} if same else block


def _seen_by_teacher(row: Mapping[Any, Any]) -> Sequence[str]:
    """Return the panels of a student by what its teacher saw; all labels belong to both."""
    if not row["teacher"]:
        return [""]
    if row["teacher_labels"] == row["labels"]:
        return ["all", "same"] if row["labels"] == "all" else ["same"]
    return ["all"]


def write_label_efficiency(
    dataset: str,
    levels: Mapping[str, float],
    tables: Any,
    outputs: Any,
    files: Callable[[str], RunFiles],
) -> None:
    """Write the table, as CSV and Markdown, and the figure, in all formats.

    Args:
        dataset: common name of the variants with few labels.
        levels: as in `label_efficiency`.
        tables: paths of `results` and `intervals` and of their records, `protocols` and
            `summary_record`.
        outputs: paths of the table as `csv` and `md`, of the figure as `svg`, `pdf` and `png`, and
            of the `record` with their hashes.
        files: maps the folder of a run to its files.

    Raises:
        CdlError: a table does not match its record.
    """
    runs = read(tables.results, tables.protocols)
    cells = read(tables.intervals, tables.summary_record)
    table = label_efficiency(runs, cells, read_json(tables.protocols), dataset, levels)
    write(table, outputs.csv)
    write_text(outputs.md, markdown(table))
    own = runs[runs["dataset"].str.partition("+")[0] == dataset].assign(dataset=dataset)
    test = HeldOut.of(read_json(files(own["run"].iloc[0]).results))
    band, figures = f"band: {INTERVAL} {either(table['over'])}", [outputs[k] for k in IMAGES]
    save(draw(table, about(own, test.images, band)), figures)
    write_json(outputs.record, {}, files=[outputs.csv, outputs.md, *figures])


def on_page(tables: Any) -> list[dict[str, Any]]:
    """Return the content of the page's section: name, figure, rows and note of each dataset.

    Args:
        tables: paths of the tables as `efficiency_tables`, of their SVG figures as
            `efficiency_figures` and of their records as `efficiency_records`, in the same order;
            missing if no dataset has several levels.

    Raises:
        CdlError: a table or figure does not match its record.
    """
    sections = []
    paths = ("efficiency_tables", "efficiency_figures", "efficiency_records")
    for path, figure, record in zip(*(getattr(tables, p, ()) for p in paths), strict=True):
        table, drawn = read(path, record), embedded(figure, record)
        if not _panels(table, levels=2):
            continue
        dataset = Path(path).stem.removeprefix("label_efficiency_")
        text = {"rows": display_table(table), "note": _note(table)}
        sections.append({"dataset": dataset, "figure": drawn, **text})
    return sections


def display_table(table: pd.DataFrame) -> list[dict[str, str]]:
    """Return the table as text, with a column for each level."""
    lines = []
    heads = {level: f"{level} label{'' if level == '1' else 's'}" for level in _levels(table)}
    for panel, learners in _panels(table):
        for learner, rows in learners.groupby("learner", sort=False):
            line = {"method": panel["method"], "teacher saw": _SAW[panel["teacher_saw"]]}
            line |= {"learner": str(learner), **dict.fromkeys(heads.values(), "-")}
            for row in rows.to_dict("records"):
                line[heads[row["labels"]]] = f"{number(row['accuracy'])} ({ends(row, 'accuracy')})"
            lines.append(line)
    return lines


def markdown(table: pd.DataFrame) -> str:
    """Return the table as Markdown, with a note."""
    return as_markdown(display_table(table), _note(table))


def _note(table: pd.DataFrame) -> str:
    return (
        "Final average accuracy in percent, mean over seeds, with its 95 % interval over "
        f"{either(table['over'])}, by the number of training examples of each "
        "class that have a label for the student. The teacher saw all labels, or the same as its "
        "student. A student with a teacher can also train on the examples without a label, and its "
        "class statistics can have the teacher's labels for them: its difference from none is then "
        "the combined effect."
    )


def _levels(table: pd.DataFrame) -> dict[str, float]:
    """Return the positions of the levels by their names, in ascending order."""
    levels = table.sort_values("position").drop_duplicates("labels")
    return dict(zip(levels["labels"], levels["position"], strict=True))


@paper()
def draw(table: pd.DataFrame, note: str) -> Figure:
    """Draw accuracy against labels, a panel per method, pair and kind of teacher.

    Panels with one level of labels are left out.

    Args:
        table: from `label_efficiency`.
        note: small print, see `about`.
    """
    panels, levels = _panels(table, levels=2), _levels(table)
    if not panels:
        return nothing("one level of labels: nothing to compare")
    several = len({panel["teacher"] for panel, _ in panels if panel["teacher_saw"]}) > 1
    titles = [_title(panel, panel["teacher"] if several else "teacher") for panel, _ in panels]
    share = any(level.endswith("%") for level in levels)
    label = "share of the training examples with a label" if share else "labels per class"
    figure, axes = canvas(
        titles, label, "final average accuracy (%)", note, sharex=True, sharey=True
    )
    for axis, (_, learners) in zip(axes, panels, strict=True):
        for name, rows in learners.groupby("learner", sort=False):
            rows, style = rows.sort_values("position"), look(str(name))
            x, low, high = rows["position"], rows["accuracy_low"], rows["accuracy_high"]
            axis.plot(x, rows["accuracy"], label=name, **style.line)
            draw_band(axis, x, low, high, style.colour)
            # bars show the interval also if the line is a single point
            axis.vlines(x, low, high, color=style.colour, linewidth=0.8)
        axis.set_xscale("log")
        axis.set_xticks(list(levels.values()), list(levels))
        axis.xaxis.set_minor_locator(NullLocator())
    legend(figure, axes)
    return figure


def _title(panel: Mapping[str, Any], teacher: str) -> str:
    """Return the title of a panel, with a name for its teacher."""
    saw = _SAW[panel["teacher_saw"]]
    return f"{panel['method']}\n{f'{teacher} saw {saw}' if panel['teacher_saw'] else saw}"


def _panels(table: pd.DataFrame, levels: int = 1) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """Split a table into its panels with so many levels of labels, in the order of its rows."""
    groups = table.groupby(PANEL, sort=False)
    panels = [(dict(zip(PANEL, key, strict=True)), rows) for key, rows in groups]
    return [(panel, rows) for panel, rows in panels if rows["labels"].nunique() >= levels]
