"""Write tables of the finished runs while others are missing. Does not run any job."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pandas as pd
import yaml

from cdl.evaluation.predictions import read_predictions
from cdl.inventory.state import DAMAGED, DONE, OUTDATED, States, name_of
from cdl.layout import SUMMARIES, RunFiles
from cdl.reporting.latex import DEFAULT
from cdl.reporting.published import write_comparison
from cdl.reporting.runs import results_of, with_agreement
from cdl.reporting.summary import summarise, write_summary
from cdl.reporting.tables import write
from cdl.runtime.artifacts import replacing, write_json
from cdl.study.grid import Grid
from cdl.study.report_jobs import ReportJobs
from cdl.study.specifications import in_use


def unfinished(grid: Grid) -> str:
    """Return how many runs of a grid are not finished with its values, as text; empty if none."""
    runs, _ = finished_runs(grid)
    n = runs.count(None)
    return f"{n} of {len(runs)} runs are not finished with the values of this file" if n else ""


def finished_runs(grid: Grid) -> tuple[list[dict[str, Any] | None], list[str]]:
    """Read the results of the finished runs of a grid.

    Returns:
        The content of each run's `results.json`, None for a run that is not finished with the
        values of the grid; and lines of text on results that are left out for another reason.
    """
    states, lines = States.of_grid(grid), []
    runs: list[dict[str, Any] | None] = []
    for job in states.jobs.of("evaluate"):
        state = states.checked(job)
        runs.append(states.read(job.records[0].path) if state.name == DONE else None)
        if state.name in (OUTDATED, DAMAGED):
            lines.append(f"left out: {name_of(job)}: {state.why}")
    return runs, lines


def finished_table(
    grid: Grid, runs: Sequence[dict[str, Any] | None]
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return `results` and `protocols` of `cdl.reporting.runs.results_of` of `finished_runs`."""
    rows = ReportJobs(grid).rows
    return results_of(rows, with_agreement(rows, runs, RunFiles))


def write_configuration(grid: Grid, path: str) -> None:
    """Write the values of a grid that can change a result, which `cdl trace` reads."""
    with replacing(path) as temporary:
        temporary.write_text(yaml.safe_dump(in_use(grid), sort_keys=False))


def tabulate(grid: Grid, columns: Sequence[str] = DEFAULT) -> list[str]:
    """Write the summary of finished runs, and the comparisons with published numbers.

    Paths are relative to the current folder.

    Args:
        grid: grid of the runs.
        columns: columns of the summary in LaTeX, see `cdl.reporting.latex`.

    Returns:
        Lines of text: results that are left out, with the reason, and the folder of the tables.
    """
    runs, lines = finished_runs(grid)
    results, protocols = finished_table(grid, runs)
    tables = grid.layout.report.partial
    finished = results[results["protocol"] != ""]
    write(finished, tables.results)
    outputs = {kind: tables.summary(kind) for kind in SUMMARIES}
    summary = summarise(results, lambda run: read_predictions(RunFiles(run)))
    write_summary(summary, results, SimpleNamespace(**outputs), columns)
    write_json(tables.protocols, protocols, [tables.results, *outputs.values()])
    write_configuration(grid, tables.configuration)
    for name in grid.comparisons:
        compared = ReportJobs(grid).compared(name)
        mine = results[results["run"].isin([row["run"] for row in compared["rows"]])]
        write_comparison(f"{tables.folder}/{name}", mine, protocols, **compared["published"])
    n = sum(run is not None for run in runs)
    return [*lines, f"{n} of {len(runs)} runs are finished; tables: {tables.folder}"]
