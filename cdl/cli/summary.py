"""The summary that `cdl run` prints: accuracies as bars, paths of the results, the next command."""

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

from cdl.cli.advice import advice, baselines, best_cell, has_interval, is_bound, name_of_bound
from cdl.inventory.finished import tabulate
from cdl.layout import RESULTS, ReportFiles, RunFiles
from cdl.reporting.names import named, names
from cdl.reporting.panels import Panel, panels_of
from cdl.reporting.style import look
from cdl.reporting.tables import read
from cdl.runtime.artifacts import read_json
from cdl.study.configuration import read as read_yaml
from cdl.study.grid import Grid

WIDTH = 24  # of a bar, in characters


def show(
    report: ReportFiles,
    unaligned: Collection[str],
    command: str,
    console: Console | None = None,
) -> None:
    """Print the mean accuracies of a finished configuration, whether they are good, what is next.

    Args:
        report: files of the configuration.
        unaligned: folders of the runs that train heads and do not align them.
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
        trains_nothing = rows.apply(is_bound, axis=1)
        bounds = rows[trains_nothing]
        panels = panels_of(rows[~trains_nothing]) or [Panel("", bounds)]
        for panel in panels:
            together = panel.rows if panel.rows is bounds else pd.concat([panel.rows, bounds])
            title = f"{panel.title.replace(chr(10), ', ')} on {dataset}".removeprefix(" on ")
            console.print()
            console.print(_accuracy_table(title, together))
    console.print(_legend(cells), soft_wrap=True)
    console.print()
    figure = report.figure("accuracy", str(cells["dataset"].iloc[0]), "svg")
    paths = {"Page": report.page, "Table": tables.summary("md"), "Figure": figure}
    best = RunFiles(str(best_cell(results)["run"].iloc[0]))
    n_classes = len(read_json(best.results)["classes"])
    lines = advice(results, cells, n_classes, command, unaligned, _embedded(tables.configuration))
    for what, text in {**paths, **lines}.items():
        console.print(f"{what + ':':<8} [bold]{escape(text)}[/]", soft_wrap=True)


def show_runs(grid: Grid, targets: Collection[str], folder: Path, command: str) -> None:
    """Print the accuracy of each run whose results were named as a target, and how to trace it.

    Without the tables of the whole study, those of its finished runs are written, as by
    `cdl tables`.

    Args:
        grid: grid of the runs.
        targets: arguments of Snakemake; nothing is printed without results of a run among them.
        folder: working directory of the run.
        command: command that starts this program.

    Raises:
        CdlError: results are damaged.
    """
    wanted = {os.path.relpath(folder / target, folder) for target in targets}
    every = [grid.files(run) for run in grid.runs]
    made = [own for own in every if own.results in wanted and (folder / own.results).is_file()]
    if not made:
        return
    with contextlib.chdir(folder):
        for files in made:
            accuracy = read_json(files.results)["metrics"]["final_average_accuracy"]
            print(f"{accuracy:.2f} %  {files.folder.removeprefix(f'{RESULTS}/')}")
        tables = grid.layout.report.tables
        whole = Path(tables.results).is_file()
        known = set(read(tables.results, tables.protocols)["run"]) if whole else set()
        if not known.issuperset(files.folder for files in made):
            tabulate(grid)
    origin = [command, "trace", made[0].folder.removeprefix(f"{RESULTS}/")]
    results = [] if folder == Path(".") else ["--results", str(folder / RESULTS)]
    print(f"Origin: {shlex.join([*origin, *results])}")


def _embedded(configuration: str) -> set[str]:
    """Return the names of the backbones in a resolved configuration that come with cdl."""
    backbones = read_yaml(configuration)["backbones"]
    return {name for name, block in backbones.items() if block["embedded"] is not None}


def _accuracy_table(title: str, rows: pd.DataFrame) -> Table:
    """Return the learners of one method: accuracy with bar and interval, gain over the baseline."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("")
    table.add_column("final average accuracy", width=WIDTH)
    table.add_column("%", justify="right")
    table.add_column("95 % interval", justify="right", style="dim")
    table.add_column("gain in points", justify="right")
    top = min(100.0, max(10.0, rows["accuracy_high"].max()))
    for name, row in zip(names(rows), rows.to_dict("records"), strict=True):
        colour = "default" if name == "teacher" else look(name).colour
        name = name_of_bound(row) if is_bound(row) else name
        bar: Any = Bar(top, 0, row["accuracy"], width=WIDTH, color=colour)
        ends = f"{row['accuracy_low']:.1f} to {row['accuracy_high']:.1f}"
        gain = "" if pd.isna(row["gain"]) else f"{row['gain']:+.1f}".replace("-", "−")
        ends = ends if has_interval(row) else "-"
        table.add_row(name, bar, f"{row['accuracy']:.1f}", ends, gain)
    return table


def _legend(cells: pd.DataFrame) -> str:
    """Say what the intervals cover, and what a gain is over."""
    over = " or ".join(dict.fromkeys(cells["over"]))
    n = " or ".join(map(str, sorted({*cells["n"]})))
    text = f"intervals over {over}, seeds: {n}"
    labels = baselines(cells[cells["role"] == "student"])
    gained = " or ".join(labels[name] for name in dict.fromkeys(cells["baseline"]) if name)
    return f"{text}; gain over {gained}" if gained else text
