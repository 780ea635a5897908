"""Write tables of the finished runs while others are missing. Does not run any job."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import yaml

from cdl.evaluation.predictions import read_predictions
from cdl.inventory.state import DAMAGED, DONE, OUTDATED, States, name_of, with_files
from cdl.layout import SUMMARIES, RunFiles
from cdl.reporting.latex import DEFAULT
from cdl.reporting.published import write_comparison
from cdl.reporting.runs import results_of, with_agreement
from cdl.reporting.summary import summarise, write_summary
from cdl.reporting.tables import write
from cdl.runtime.artifacts import read_json, replacing, write_json
from cdl.study.grid import Grid
from cdl.study.jobs import Jobs
from cdl.study.learning_jobs import LearningJobs
from cdl.study.report_jobs import ReportJobs
from cdl.study.specifications import in_use


def unfinished(grid: Grid) -> str:
    """Return how many runs of a grid are not finished with its values, as text; empty if none."""
    jobs = Jobs(LearningJobs(grid))
    state_of, every = States(jobs), jobs.of("evaluate")
    n = sum(state_of(job).name != DONE for job in every)
    return f"{n} of {len(every)} runs are not finished with the values of this file" if n else ""


def finished_runs(grid: Grid) -> tuple[list[dict[str, Any] | None], list[str]]:
    """Read the results of the finished runs of a grid.

    Returns:
        The content of each run's `results.json`, None for a run that is not finished with the
        values of the grid; and lines of text on results that are left out for another reason.
    """
    jobs = Jobs(LearningJobs(grid))
    state_of, lines = States(jobs), []
    runs: list[dict[str, Any] | None] = []
    for job in jobs.of("evaluate"):
        state = with_files(state_of(job), job.records[0])
        runs.append(read_json(job.records[0].path) if state.name == DONE else None)
        if state.name == OUTDATED:
            why = f"{state.what} {state.before}, now {state.now}"
            lines.append(f"left out: {name_of(job)}: {why}")
        elif state.name == DAMAGED:
            lines.append(f"left out: {name_of(job)}: {state.what}")
    return runs, lines


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
    report = ReportJobs(grid)
    runs, lines = finished_runs(grid)
    tables = grid.layout.report.partial
    results, protocols = results_of(report.rows, with_agreement(report.rows, runs, RunFiles))
    finished = results[results["protocol"] != ""]
    write(finished, tables.results)
    outputs = {kind: tables.summary(kind) for kind in SUMMARIES}
    summary = summarise(results, lambda run: read_predictions(RunFiles(run)))
    write_summary(summary, results, SimpleNamespace(**outputs), columns)
    write_json(tables.protocols, protocols, [tables.results, *outputs.values()])
    write_configuration(grid, tables.configuration)
    for name in grid.comparisons:
        compared = report.compared(name)
        mine = results[results["run"].isin([row["run"] for row in compared["rows"]])]
        write_comparison(f"{tables.folder}/{name}", mine, protocols, **compared["published"])
    n = sum(run is not None for run in runs)
    return [*lines, f"{n} of {len(runs)} runs are finished; tables: {tables.folder}"]
