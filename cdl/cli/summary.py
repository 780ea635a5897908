"""What `cdl run` prints at its end: accuracies as bars, whether they are good, and what is next."""

import contextlib
import os
import shlex
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd
from rich.bar import Bar
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cdl.inventory.finished import tabulate
from cdl.layout import RESULTS, ReportFiles, RunFiles
from cdl.reporting.best import (
    BOUNDS,
    MIN_SEEDS,
    base_of,
    best_cell,
    full_name,
    judgement,
    labels_of,
)
from cdl.reporting.names import named
from cdl.reporting.panels import Panel, panels_of
from cdl.reporting.style import look
from cdl.reporting.tables import read
from cdl.reporting.text import either, ends, number
from cdl.runtime.artifacts import read_json
from cdl.study.configuration import read as read_yaml
from cdl.study.grid import Grid

WIDTH = 24  # of a bar, in characters
FEW_EXAMPLES = 100  # per class, below which more of them are suggested


def show(report: ReportFiles, command: str, console: Console | None = None) -> None:
    """Print the mean accuracies of a finished configuration, whether they are good, what is next.

    Args:
        report: files of the configuration.
        command: command that starts this program.
        console: console to print to; default: stdout.

    Raises:
        CdlError: a table is damaged.
    """
    console = console or Console(highlight=False)
    tables = report.tables
    cells = named(read(tables.intervals, tables.record("summary")))
    results = read(tables.results, tables.protocols)
    for dataset, rows in cells.groupby("dataset", sort=False):
        bounds = rows[rows["method"].map(base_of).isin([*BOUNDS])]
        for panel in panels_of(rows.drop(bounds.index)) or [Panel("", rows[:0])]:
            title = f"{panel.title.replace(chr(10), ', ')} on {dataset}".removeprefix(" on ")
            console.print()
            console.print(_accuracy_table(title, pd.concat([panel.rows, bounds])))
    console.print(_legend(cells), soft_wrap=True)
    console.print()
    figure = report.figure("accuracy", str(cells["dataset"].iloc[0]), "svg")
    lines = {"Page": report.page, "Table": tables.summary("md"), "Figure": figure}
    n_classes = len(read_json(RunFiles(best_cell(results)["run"].iloc[0]).results)["classes"])
    backbones = read_yaml(tables.configuration)["backbones"]
    embedded = [name for name, block in backbones.items() if block["embedded"] is not None]
    lines |= advice(results, cells, n_classes, command, embedded)
    for what, text in lines.items():
        console.print(f"{what + ':':<8} [bold]{escape(text)}[/]", soft_wrap=True)


def show_runs(
    grid: Grid, targets: Collection[str], folder: Path, command: str, *, computed: bool
) -> None:
    """Print the accuracy of each run whose results were named as a target, and how to trace it.

    Without the tables of the whole study, those of its finished runs are written, as by
    `cdl tables`.

    Args:
        grid: grid of the runs.
        targets: arguments of Snakemake; nothing is printed without results of a run among them.
        folder: working directory of the run.
        command: command that starts this program.
        computed: whether a job has run; else the numbers were there before.

    Raises:
        CdlError: results are damaged.
    """
    wanted = {os.path.relpath(folder / target, folder) for target in targets}
    made = [files for files in map(grid.files, grid.runs) if files.results in wanted]
    with contextlib.chdir(folder):
        made = [files for files in made if Path(files.results).is_file()]
        if not made:
            return
        for files in made:
            accuracy = read_json(files.results)["metrics"]["final_average_accuracy"]
            before = "" if computed else "  (not computed, already there)"
            print(f"{accuracy:.2f} %  {files.folder.removeprefix(f'{RESULTS}/')}{before}")
        tables = grid.layout.report.tables
        whole = Path(tables.results).is_file()
        known = set(read(tables.results, tables.protocols)["run"]) if whole else set()
        if not known.issuperset(files.folder for files in made):
            tabulate(grid)
    origin = [command, "trace", made[0].folder.removeprefix(f"{RESULTS}/")]
    results = [] if folder == Path(".") else ["--results", str(folder / RESULTS)]
    print(f"Origin: {shlex.join([*origin, *results])}")


def _accuracy_table(title: str, rows: pd.DataFrame) -> Table:
    """Return the learners of one method: accuracy with bar and interval, gain over the baseline."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("")
    table.add_column("final average accuracy", width=WIDTH)
    table.add_column("%", justify="right")
    table.add_column("95 % interval", justify="right", style="dim")
    table.add_column("gain in points", justify="right")
    top = min(100.0, max(10.0, rows["accuracy_high"].max()))
    for row in rows.to_dict("records"):
        name = row["label"]
        colour = "default" if name == "teacher" else look(name).colour
        bar: Any = Bar(top, 0, row["accuracy"], width=WIDTH, color=colour)
        shown = row["n"] >= MIN_SEEDS or "seeds" not in row["over"]
        interval = ends(row, "accuracy") if shown else "-"
        gain = "" if pd.isna(row["gain"]) else number(row["gain"], "+.1f")
        name = full_name(row) if base_of(row["method"]) in BOUNDS else name
        table.add_row(name, bar, number(row["accuracy"]), interval, gain)
    return table


def _legend(cells: pd.DataFrame) -> str:
    """Say what the intervals cover, and what a gain is over."""
    text = f"intervals over {either(cells['over'])}, seeds: {either(sorted({*cells['n']}))}"
    labels = labels_of(cells[cells["role"] == "student"])
    pairs = cells.loc[cells["baseline"] != "", ["method", "baseline"]]
    baselines = either(labels[pair] for pair in pairs.itertuples(index=False, name=None))
    return f"{text}; gain over {baselines}" if baselines else text


def advice(
    results: pd.DataFrame,
    cells: pd.DataFrame,
    n_classes: int,
    command: str,
    embedded: Collection[str] = (),
) -> dict[str, str]:
    """Return whether the results are good, and what to do next, by heading.

    Args:
        results: one row per run.
        cells: one row per cell, see `cdl.reporting.intervals` and `cdl.reporting.names.named`.
        n_classes: number of classes of the best student.
        command: command that starts this program.
        embedded: names of the backbones that come with cdl, which are small.
    """
    first, lines, better = best_cell(results).iloc[0], judgement(results, cells, n_classes), []
    if (per_class := first["labelled_seen"] / n_classes) < FEW_EXAMPLES:
        better.append(f"more examples of a class than {per_class:.0f}")
    if first["backbone"] in embedded:
        better.append(f"a pretrained ViT ({command} list backbones)")
    if better:
        lines["Better"] = "; ".join(better)
    lines["Next"] = f"{command} export {shlex.quote(str(first['run']))} -o student"
    return lines
