"""How far few labels go: final average accuracy against how many labels each class has."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.ticker import NullLocator

from cdl.report.figures import INTERVAL
from cdl.report.style import about, canvas, legend, look, names, paper, save
from cdl.runtime.artifacts import read_json, replacing, write_json
from cdl.tables.costs import RunFiles
from cdl.tables.runs import CELL, method_of, read, taught_by, write

NUMBERS = ["n", "over", "accuracy", "accuracy_low", "accuracy_high"]
PANEL = ["method", "teacher", "student", "teacher_saw", "dataset_block"]
_SAW = {"all": "its teacher saw all labels", "same": "its teacher saw the same", "": "alone"}


def label_efficiency(
    runs: pd.DataFrame, cells: pd.DataFrame, protocols: Mapping[str, Any], dataset: str
) -> pd.DataFrame:
    """Return what every learner reaches with how many labels.

    Args:
        runs: of a configuration, from `cdl.tables.runs.collect`.
        cells: of `cdl.report.intervals`.
        protocols: what stands behind each hash in the runs.
        dataset: the name that variants with few labels have in common.

    Returns:
        One row per panel, learner and level. `PANEL` names methods, pairs, what the teacher saw
        (`all` labels or the `same` as its student) and, as JSON, what a variant says beside; in
        `labels` is the level of the student, at which its teacher and the undistilled student
        stand too; `NUMBERS` are those of `cells`, in percent.
    """
    known = runs.merge(cells[[*CELL, *NUMBERS]], on=CELL).assign(learner=names)
    by_run = {row["run"]: row for row in known.to_dict("records")}
    students = known[(known["dataset"].str.partition("+")[0] == dataset)]
    students = students[students["role"] == "student"].drop_duplicates(CELL)
    taught = {*students.loc[students["teacher"] != "", "method"]}
    rows = []
    for row in students.to_dict("records"):
        if not row["teacher"] and row["method"] in taught:
            continue  # it stands beside those that are compared with it
        block = protocols[row["protocol"]]["dataset"].items()
        block = {k: v for k, v in block if k not in ("labels", "teacher_labels")}
        panel = (method_of(row), taught_by(row), row["student"])
        for saw in _seen_by_teacher(row):
            values = (*panel, saw, json.dumps(block, sort_keys=True))
            named = dict(zip(PANEL, values, strict=True)) | {"labels": row["labels"]}
            shown = [by_run[r] for r in (row["teacher_run"], row["none_run"], row["run"]) if r]
            rows += [{**named, **{k: r[k] for k in ("learner", *NUMBERS)}} for r in shown]
    table = pd.DataFrame(rows, columns=[*PANEL, "learner", "labels", *NUMBERS])
    table = table.drop_duplicates([*PANEL, "learner", "labels"])
    few = table.groupby(PANEL)["labels"].transform(lambda labels: (labels != "all").any())
    return table[few.astype(bool)]


def _seen_by_teacher(row: Mapping[Any, Any]) -> Sequence[str]:
    """Return the kinds of panels that a student belongs to; with all labels there is one kind."""
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
        dataset: the name that variants with few labels have in common.
        levels: where each level stands on the axis, by its name, the lowest first.
        tables: paths of `results` and `intervals` and of their records, `protocols` and
            `summary_record`.
        outputs: paths of the table as `csv` and `md`, of the figure as `svg`, `pdf` and `png`, and
            of the `record` that vouches for them.
        files: from a run's folder to its files.
    """
    runs = read(tables.results, tables.protocols)
    cells = read(tables.intervals, tables.summary_record)
    table = label_efficiency(runs, cells, read_json(tables.protocols), dataset)
    write(table, outputs.csv)
    with replacing(outputs.md) as temporary:
        temporary.write_text(markdown(table, levels))
    own = runs[runs["dataset"].str.partition("+")[0] == dataset].assign(dataset=dataset)
    images = sum(read_json(files(own["run"].iloc[0]).results)["test_images"])
    over = " or ".join(dict.fromkeys(table["over"]))
    figures = [outputs.svg, outputs.pdf, outputs.png]
    draw(table, levels, about(own, images, f"band: {INTERVAL} {over}"), figures)
    write_json(outputs.record, {}, files=[outputs.csv, outputs.md, *figures])


def markdown(table: pd.DataFrame, levels: Mapping[str, float]) -> str:
    """Return the table for people, a column per level."""
    lines = []
    for panel, learners in _panels(table):
        for learner, rows in learners.groupby("learner", sort=False):
            by_level = {row["labels"]: row for row in rows.to_dict("records")}
            lines.append(
                {
                    "method": panel["method"],
                    "teacher saw": panel["teacher_saw"] or "-",
                    "learner": learner,
                    **{_named(n): _shown(by_level.get(n)) for n in levels},
                }
            )
    note = (
        "Final average accuracy in percent, mean over seeds, with its 95 % bootstrap interval over "
        f"{' or '.join(dict.fromkeys(table['over']))}, by how many training images of each class "
        "have a label for the student. The teacher saw all labels, or the same as its student."
    )
    return pd.DataFrame(lines).to_markdown(index=False, disable_numparse=True) + f"\n\n{note}\n"


@paper()
def draw(
    table: pd.DataFrame, levels: Mapping[str, float], note: str, outputs: Sequence[str]
) -> None:
    """Draw accuracy against labels, a panel per method, pair and kind of teacher.

    Args:
        table: of `label_efficiency`.
        levels: as in `write_label_efficiency`.
        note: small print, see `about`.
        outputs: files to write, the suffix decides the format.
    """
    panels = _panels(table)
    titles = [f"{panel['method']}\n{_SAW[panel['teacher_saw']]}" for panel, _ in panels]
    share = any(level.endswith("%") for level in levels)
    x = "share of the training images with a label" if share else "labels of each class"
    figure, axes = canvas(titles, x, "final average accuracy (%)", note, sharex=True, sharey=True)
    for axis, (_, learners) in zip(axes, panels, strict=True):
        for name, rows in learners.groupby("learner", sort=False):
            rows = rows.assign(x=rows["labels"].map(levels)).sort_values("x")
            style = look(str(name))
            axis.plot(rows["x"], rows["accuracy"], label=name, **style.line)
            band: dict[str, Any] = {"color": style.colour, "alpha": 0.12, "linewidth": 0}
            axis.fill_between(rows["x"], rows["accuracy_low"], rows["accuracy_high"], **band)
        axis.set_xscale("log")
        axis.set_xticks(list(levels.values()), list(levels))
        axis.xaxis.set_minor_locator(NullLocator())
    legend(figure, axes)
    save(figure, outputs)


def _panels(table: pd.DataFrame) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """Split a table into its panels, in its order."""
    groups = table.groupby(PANEL, sort=False)
    return [(dict(zip(PANEL, key, strict=True)), rows) for key, rows in groups]


def _named(level: str) -> str:
    return f"{level} label{'' if level == '1' else 's'}"


def _shown(row: Mapping[Any, Any] | None) -> str:
    """Return an accuracy with its interval; a dash where there is none."""
    if row is None:
        return "-"
    return f"{row['accuracy']:.1f} ({row['accuracy_low']:.1f} to {row['accuracy_high']:.1f})"
