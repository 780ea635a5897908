"""The summary that `cdl run` prints: accuracies as bars, paths of the results, the next command."""

from collections.abc import Collection
from typing import Any

import pandas as pd
from rich.bar import Bar
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cdl.cli.advice import advice
from cdl.layout import ReportFiles
from cdl.reporting.intervals import reading
from cdl.reporting.names import named
from cdl.reporting.style import look, names, panels_of
from cdl.reporting.tables import read

WIDTH = 24  # of a bar, in characters


def show(
    report: ReportFiles,
    unaligned: Collection[str],
    command: str,
    console: Console | None = None,
) -> None:
    """Print the mean accuracies of a finished configuration with their intervals, and advice.

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
    for dataset, rows in cells.groupby("dataset", sort=False):
        for panel in panels_of(rows):
            console.print()
            console.print(
                _accuracy_table(f"{panel.title.replace(chr(10), ', ')} on {dataset}", panel.rows)
            )
            if panel.rows["gain"].notna().any() or cells["gain"].isna().all():
                console.print(reading(panel.rows))  # bounds have nothing to compare beside others
    console.print()
    figure = report.figure("accuracy", str(cells["dataset"].iloc[0]), "svg")
    paths = {"Page": report.page, "Table": tables.summary("md"), "Figure": figure}
    paths |= advice(read(tables.results, tables.protocols), unaligned, command)
    for what, text in paths.items():
        console.print(f"{what + ':':<8}[bold]{escape(text)}[/]", soft_wrap=True)


def _accuracy_table(title: str, rows: pd.DataFrame) -> Table:
    """Return the learners of one method: accuracy with bar and interval, gain over no distiller."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("")
    table.add_column("final average accuracy", width=WIDTH)
    table.add_column("%", justify="right")
    table.add_column("95 % interval", justify="right", style="dim")
    table.add_column("gain in points", justify="right")
    top = min(100.0, max(10.0, rows["accuracy_high"].max()))
    for name, row in zip(names(rows), rows.to_dict("records"), strict=True):
        colour = "default" if name == "teacher" else look(name).colour
        bar: Any = Bar(top, 0, row["accuracy"], width=WIDTH, color=colour)
        ends = f"{row['accuracy_low']:.1f} to {row['accuracy_high']:.1f}"
        gain = "" if pd.isna(row["gain"]) else f"{row['gain']:+.1f}".replace("-", "−")
        table.add_row(name, bar, f"{row['accuracy']:.1f}", ends, gain)
    return table
