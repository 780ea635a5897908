"""Write tables of the finished runs while others are missing. Does not run any job."""

from collections.abc import Sequence
from typing import Any

from cdl.inventory.state import DAMAGED, DONE, OUTDATED, State, States, name_of
from cdl.layout import SUMMARIES, RunFiles
from cdl.reporting.intervals import answers_of, intervals
from cdl.reporting.latex import DEFAULT, write_latex
from cdl.reporting.published import write_comparison
from cdl.reporting.runs import complete_all, read_predictions, results_of, write, write_summary
from cdl.runtime.artifacts import check_files, read_json, write_json
from cdl.runtime.errors import CdlError
from cdl.study.grid import Grid
from cdl.study.jobs import Jobs, Record
from cdl.study.learning_jobs import LearningJobs
from cdl.study.report_jobs import ReportJobs


def tabulate(grid: Grid, columns: Sequence[str] = DEFAULT) -> list[str]:
    """Write the summary of finished runs, and the comparisons with published numbers.

    Paths are relative to the current folder.

    Args:
        grid: grid of the runs.
        columns: columns of the summary in LaTeX, see `cdl.reporting.latex`.

    Returns:
        Lines of text: results that are left out, with the reason, and the folder of the tables.
    """
    jobs, report = Jobs(LearningJobs(grid)), ReportJobs(grid)
    state_of, lines = States(jobs), []
    runs: list[dict[str, Any] | None] = []
    for job in jobs.of("evaluate"):
        state = state_of(job)
        if state.name == DONE:
            state = _with_predictions(job.records[0])
        runs.append(read_json(job.records[0].path) if state.name == DONE else None)
        if state.name == OUTDATED:
            why = f"{state.what} {state.before}, now {state.now}"
            lines.append(f"left out: {name_of(job)}: {why}")
        elif state.name == DAMAGED:
            lines.append(f"left out: {name_of(job)}: {state.what}")
    tables = grid.layout.report.partial
    results, protocols = results_of(report.rows, complete_all(report.rows, runs, RunFiles))
    finished = results[results["protocol"] != ""]
    write(finished, tables.results)
    summary = [tables.summary(kind) for kind in SUMMARIES]
    write_summary(results, tables.summary("csv"), tables.summary("md"))
    cells = intervals(finished, answers_of(lambda run: read_predictions(RunFiles(run))))
    write_latex(results, cells, tables.summary("tex"), columns)
    write_json(tables.protocols, protocols, [tables.results, *summary])
    for name in grid.comparisons:
        compared = report.compared(name)
        mine = results[results["run"].isin([row["run"] for row in compared["rows"]])]
        write_comparison(f"{tables.folder}/{name}", mine, protocols, **compared["published"])
    n = sum(run is not None for run in runs)
    return [*lines, f"{n} of {len(runs)} runs are finished; tables: {tables.folder}"]


def _with_predictions(record: Record) -> State:
    """Return the state of a finished evaluation after comparing its predictions with the record."""
    try:
        check_files(record.path, *record.files)
    except CdlError as error:
        return State(DAMAGED, str(error))
    return State(DONE)
