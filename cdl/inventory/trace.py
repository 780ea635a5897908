"""Show the provenance of a table cell, and check every step.

The configuration beside the tables gives the list of jobs that made them. Its records are followed
from the evaluation of a run to the data, by those of the run and of its teacher: what a record says
is compared with the configuration, with the fingerprints of its inputs and with its files. A file
that is absent while its record is there, as in an archive of the records alone, is reported as not
included; caches may be absent with their record. Does not import torch.
"""

import contextlib
import os
from collections.abc import Callable, Hashable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cdl.evaluation.metrics import metrics
from cdl.evaluation.predictions import read_predictions
from cdl.inventory.cells import Row, cells_in_tables, rows_of
from cdl.inventory.naming import below, did_you_mean, elsewhere, matching
from cdl.inventory.verify import Fault, Faults, recorded_files
from cdl.layout import RESULTS, ResultsFolder, RunFiles
from cdl.reporting.columns import METRICS
from cdl.runtime.artifacts import check_files, check_provenance, fingerprint, read_json
from cdl.runtime.errors import CdlError
from cdl.study.configuration import resolve
from cdl.study.grid import Grid
from cdl.study.jobs import Job, Jobs, flat
from cdl.study.layers import merged
from cdl.study.report_jobs import study_jobs

_NOT_INCLUDED = "; not included: "
_CACHE = ": none, or deleted, as caches may be"
_STEPS = {  # names of the steps by rule; a task follows
    "train": "task",
    "distil": "task",
    "align": "aligned",
    "test_queries": "queries",
    "test_features": "features",
    "fetch_backbone": "backbone",
    "prepare_dataset": "data",
}
_LAST = ("queries", "features", "backbone", "data")  # steps that are shown after all tasks


class Link(NamedTuple):
    """One step of the provenance.

    Attributes:
        what: kind of the step, such as `table`, or `task 1`, counted from 1.
        holds: whether the check has passed.
        text: path of the file and the names of absent files, or the error message.
    """

    what: str
    holds: bool
    text: str

    @property
    def mark(self) -> str:
        """`ok`, `BROKEN`, `absent` if only the records could be checked, `cache` without one."""
        if not self.holds:
            return "BROKEN"
        ending = "cache" if self.text.endswith(_CACHE) else "ok"
        return "absent" if _NOT_INCLUDED in self.text else ending


class Trace(NamedTuple):
    """The provenance of one run, or of a name that no row matches beside a damaged table.

    Attributes:
        row: its row in a table; None for such a name.
        configuration: absolute path of the study's configuration; None without a row.
        links: all steps, the table first.
    """

    row: Row | None
    configuration: Path | None
    links: list[Link]

    def row_of_run(self) -> Row:
        """Return the row of a run."""
        assert self.row is not None, "a name without a row is not the name of a run"
        return self.row


def trace(name: str, results: ResultsFolder) -> dict[str, Trace]:
    """Return the provenance of the runs of one or several cells.

    Args:
        name: what `naming.matching` takes, such as `digits/l2p/kd-vit_nano` for several runs.
        results: folder of the results.

    Returns:
        The provenance of each run by its folder; a damaged table is a link of every run, and of
        the name alone if no row matches it.

    Raises:
        CdlError: there is no table, or no row matches the name and no table is damaged.
    """
    here = results.path.absolute().parent  # where the paths in tables and of jobs start
    name = below(name, results.path)
    with contextlib.chdir(here):
        rows, damaged = rows_of(ResultsFolder(Path(results.path.name)))
        broken = [Link("table", False, error) for error in damaged]
        if not rows and not broken:
            raise CdlError(_without_tables(results.path))
        cells = matching(name, cells_in_tables(rows), results.path)
        if broken and not cells:
            return {name: Trace(None, None, broken)}
        if not cells:
            near = did_you_mean(name, rows)
            some = f"expected one such as {min(rows)}"
            raise CdlError(f"{name!r} is not a cell of a table{near}; {some}")
        walk = cache(_Walk)
        traces = {}
        for run in (files.folder for cell in cells for files in cell.runs.values()):
            configuration = _configuration_beside(rows[run].table).absolute()
            links = [*broken, *_links(run, rows[run], partial(walk, configuration))]
            traces[run] = Trace(rows[run], configuration, links)
        return traces


def _without_tables(results: Path) -> str:
    """Say what a folder of results has instead of tables, and which command makes them."""
    runs = ResultsFolder(Path(results.name)).runs()
    if not runs:
        return f"{results}: contains no table; run `cdl run CONFIG` first{elsewhere()}"
    n = f"{len(runs)} finished run{'s' * (len(runs) > 1)}"
    run = runs[0].folder.removeprefix(f"{RESULTS}/")
    where = f" --directory {results.parent}" * (results.parent != Path("."))
    return (
        f"{results}: contains no table, but {n}, such as {run}; `cdl tables CONFIG{where}` with "
        "the configuration of the run makes the tables, which can then be traced"
    )


def _configuration_beside(table: Path) -> Path:
    """Return the configuration that made a table, written with the page or by `cdl tables`."""
    complete = table.with_name("configuration.yaml")
    return complete if complete.is_file() else table.parent / "partial" / complete.name


class _Walk:
    """The jobs of the study that made a table, and the checks of their records.

    Args:
        configuration: the study's configuration.

    Raises:
        CdlError: the configuration is missing or invalid.
    """

    def __init__(self, configuration: Path) -> None:
        if not configuration.is_file():
            raise CdlError(
                f"{configuration}: is missing, so that the files cannot be followed; it is "
                "written by `cdl run CONFIG page`, or by `cdl tables CONFIG`"
            )
        self._configuration = configuration
        self.jobs = study_jobs(Grid(resolve(merged([configuration]))))
        self._faults_of = Faults()
        self._step_of = cache(self._step)

    def evaluation(self, run: str) -> Job:
        """Return the job that evaluates a run."""
        job = self.jobs.by_output.get(RunFiles(run).results)
        if job is None:
            raise CdlError(f"{run}: is not a run of {self._configuration}")
        return job

    def check_as_planned(self, evaluation: Job) -> None:
        """Compare the record of an evaluation with the configuration and its intact inputs.

        Raises:
            CdlError: it was made with other values or from other files.
        """
        for fault in self._faults_of.differences(next(recorded_files([evaluation]))):
            raise CdlError(_told(fault))

    def steps(self, evaluation: Job) -> list[Link]:
        """Return the steps behind an evaluation, without itself; inputs of a step before it."""
        behind = {*self.jobs.behind(evaluation)} - {evaluation}
        return [self._step_of(job) for job in self.jobs if job in behind]

    def _step(self, job: Job) -> Link:
        """Return the step of a job: its records compared with the plan, and its files."""
        what = _STEPS.get(job.rule, job.rule.removeprefix("teacher_").partition("_")[0])
        what += f" {int(job.key['task']) + 1}" if "task" in job.key else ""
        shown, absent, broken = next(iter(flat(job.outputs))), [], []
        for item in recorded_files([job]):
            if item.plan is None:
                continue  # a benchmark, which no number depends on
            if item.ignored:
                return Link(what, True, f"{shown}{_CACHE}")
            for fault in self._faults_of(item):
                if fault.state == "missing" and fault.path != item.record:
                    absent.append(os.path.basename(fault.path))
                else:
                    broken.append(_told(fault))
        if broken:
            return Link(what, False, "; ".join(broken))
        return Link(what, True, shown + _NOT_INCLUDED * bool(absent) + ", ".join(absent))


def _told(fault: Fault) -> str:
    if fault.state == "missing":
        return f"{fault.path}: cannot be read: no such file"
    return fault.text if fault.path in fault.text else f"{fault.path}: {fault.text}"


def _links(run: str, row: Row, walk: Callable[[], _Walk]) -> Iterator[Link]:
    """Yield all steps of the provenance of a row, checked."""
    files, values = RunFiles(run), row.values

    def link(what: str, function: Callable[..., str], *arguments: Any) -> Link:
        """Call a check, which returns the text of the link, or raises."""
        try:
            return Link(what, True, function(*arguments))
        except CdlError as error:
            return Link(what, False, str(error))
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            return Link(what, False, f"cannot be checked: {type(error).__name__} {error}")

    accuracy = f"final average accuracy {values['final_average_accuracy']:.2f}"
    yield Link("table", True, f"{row.table}: {accuracy}, seed {values['seed']}")
    yield link("protocol", _check_protocol, row.protocols, values)
    yield link("results", _check_metrics, files.results, values)
    try:
        made = read_json(files.results)
    except CdlError:
        return  # the other links need this file
    try:
        study = walk()
        evaluation, taught = study.evaluation(run), str(values["teacher_run"])
        # first, since what is made from a broken step is not reported
        teacher = study.steps(study.evaluation(taught)) if taught else []
        steps = study.steps(evaluation)
    except CdlError as error:
        yield Link("configuration", False, str(error))
        return
    yield link("configuration", _check_evaluation, study, evaluation, values, made)
    yield link("predictions", _check_predictions, files, made)
    known = {*steps}
    steps += [step._replace(what=f"teacher {step.what}") for step in teacher if step not in known]
    yield from sorted(steps, key=lambda step: step.what.split()[0] in _LAST)
    yield link("page", _check_page, study.jobs)


def _check_protocol(path: Path, row: Mapping[Hashable, Any]) -> str:
    hashed = fingerprint(read_json(path)[row["protocol"]])[:8]
    if hashed != row["protocol"]:
        raise CdlError(f"{path}: the entry {row['protocol']} has the hash {hashed}")
    return f"{path}: {hashed}"


def _check_metrics(path: str, row: Mapping[Hashable, Any]) -> str:
    made = read_json(path)
    recorded = {k: np.nan if v is None else v for k, v in made["metrics"].items()}
    for name in recorded.keys() & row.keys() & set(METRICS):
        if not np.isclose(recorded[name], row[name], rtol=0, atol=1e-6, equal_nan=True):
            raise CdlError(f"{path}: {name} is {recorded[name]}, but {row[name]} in the table")
    for name, value in metrics(np.array(made["matrix"], float), made["test_images"]).items():
        if not np.isclose(recorded[name], value, equal_nan=True):
            raise CdlError(f"{path}: {name} is {recorded[name]}, but its matrix gives {value}")
    return f"{path}: metrics agree with the matrix"


def _check_evaluation(
    study: _Walk, job: Job, row: Mapping[Hashable, Any], made: Mapping[str, Any]
) -> str:
    """Check that results have the configured values, those of their row, and known inputs."""
    study.check_as_planned(job)
    path, learner = job.records[0].path, made["learner"]
    names = ("role", "seed", "backbone", "query", "teacher")
    recorded = {name: learner[name] for name in names}
    recorded |= {unit: learner[unit]["name"] for unit in ("method", "distiller")}
    wanted = {name: row[name] for name in recorded} | {"method": row["method"].partition("+")[0]}
    check_provenance(path, recorded, wanted | {"teacher": row["teacher"] or None})
    return f"{path}: the values of the configuration and of the row"


def _check_predictions(run: RunFiles, made: Mapping[str, Any]) -> str:
    if not os.path.exists(run.predictions):
        return f"{run.results}{_NOT_INCLUDED}{os.path.basename(run.predictions)}"
    tasks = read_predictions(run).groupby("task")["correct"]
    accuracies, counts = (100 * tasks.mean()).tolist(), tasks.size().tolist()
    if counts != made["test_images"] or not np.allclose(accuracies, made["matrix"][-1]):
        raise CdlError(
            f"{run.predictions} gives {accuracies} % of {counts} examples, but the results have "
            f"{made['matrix'][-1]} % of {made['test_images']}"
        )
    return f"{run.predictions}: accuracies agree with the last row of the matrix"


def _check_page(jobs: Jobs) -> str:
    (job,) = jobs.of("page")
    (record,) = job.records
    page = str(job.outputs["page"])
    if not any(map(os.path.exists, (page, record.path))):
        return "not made yet"
    check_files(record.path, *record.files)
    return page
