"""From a table's cell back to everything it was made of, checking each link on the way.

A row of results.csv names its run's folder; results.json there has matrix, metrics, specification
and the sha256 of the checkpoints; a checkpoint's JSON has the fingerprints of the data, the
backbones, the teacher's checkpoint and the one of the task before. Caches of the backbones and of
the teacher, loss curves and the page are compared with their records. No torch, no configuration.
"""

import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cdl.data.order import digests
from cdl.data.packing import check_images, map_pixels, read_index
from cdl.evaluation.metrics import current, metrics
from cdl.layout import ResultsFolder, RunFiles
from cdl.reporting.runs import METRICS, read, read_predictions
from cdl.runtime import artifacts
from cdl.runtime.artifacts import fingerprint, read_json
from cdl.runtime.errors import CdlError
from cdl.spec import LearnerSpec


class Link(NamedTuple):
    """One link of a chain: what it leads to, whether it holds, where that lies or what is wrong."""

    what: str
    holds: bool
    text: str


def trace(cell: str, results: ResultsFolder) -> dict[str, list[Link]]:
    """Follow one or several cells.

    Args:
        cell: `dataset/method/learner/seed`, with or without the folders above it, or the start
            of it: `digits/l2p` has many runs.
        results: where the workflow writes to.

    Returns:
        Folder of each run to its links, table first; a damaged table is a link of all of them.

    Raises:
        CdlError: there is no table, or no row fits the cell.
    """
    _intact.cache_clear()
    _packed.cache_clear()
    rows: dict[str, _Row] = {}
    damaged: list[Link] = []
    for table, protocols in results.tables():
        try:
            for row in read(table, protocols).to_dict("records"):
                rows[row["run"]] = _Row(table, protocols, row)
        except CdlError as error:
            damaged.append(Link("table", False, str(error)))
    found = [run for run in rows if _names(cell, run)]
    if damaged and not found:
        return {cell: damaged}
    if not rows:
        raise CdlError(f"{results.path}: no table lies below it; run snakemake first")
    if not found:
        raise CdlError(f"{cell!r} is no cell of a table; one is {min(rows)}")
    return {run: [*damaged, *_follow(results, rows[run])] for run in found}


class _Row(NamedTuple):
    """A row of a table."""

    table: Path
    protocols: Path
    values: Mapping[Hashable, Any]


def _names(cell: str, run: str) -> bool:
    """Whether a cell's parts are the first ones of the run's, counted from any folder above."""
    wanted, parts = Path(cell).parts, Path(run).parts
    if len(wanted) > 1 and wanted[-1].isdigit():
        wanted = (*wanted[:-1], f"seed{wanted[-1]}")
    return bool(wanted) and any(parts[i : i + len(wanted)] == wanted for i in range(3))


def _follow(results: ResultsFolder, at: _Row) -> Iterator[Link]:
    row = at.values

    def link(what: str, function: Callable[..., str], *arguments: Any) -> Link:
        """Call a check, which returns where the link leads, or raises."""
        try:
            return Link(what, True, function(*arguments))
        except CdlError as error:
            return Link(what, False, str(error))
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            return Link(what, False, f"cannot be followed: {type(error).__name__} {error}")

    run = results.run(row["run"])
    accuracy = f"final average accuracy {row['final_average_accuracy']:.2f}"
    yield Link("table", True, f"{at.table}: {accuracy}, seed {row['seed']}")
    yield link("protocol", _protocol, at.protocols, row)
    yield link("results", _metrics, run.results, row)
    try:
        made = read_json(run.results)
    except CdlError:
        return  # all that follows is named there
    yield link("configuration", _configuration, run.results, row, made)
    yield link("predictions", _predictions, run, made)
    teacher = results.run(row["teacher_run"]) if row["teacher_run"] else None
    for task in range(len(made["checkpoints"])):
        yield link(f"task {task}", _checkpoint, run, task, made, teacher)
        if teacher is not None:
            yield link(f"targets {task}", _caches, [teacher.task(task).targets])
    for name in made["backbones"]:
        yield link("backbone", _backbone, results, name, made)
        yield link("queries", _caches, results.queries(name))
    yield link("data", _data, results, row["dataset"], made, run.results)
    yield link("page", _page, *results.page(row["run"]))


def _protocol(path: Path, row: Mapping[str, Any]) -> str:
    hashed = fingerprint(read_json(path)[row["protocol"]])[:8]
    if hashed != row["protocol"]:
        raise CdlError(f"{path}: what stands under {row['protocol']} has the hash {hashed}")
    return f"{path}: {hashed}"


def _metrics(path: str, row: Mapping[str, Any]) -> str:
    made = read_json(path)
    recorded = {k: np.nan if v is None else v for k, v in current(made["metrics"]).items()}
    for name in recorded.keys() & row.keys() & set(METRICS):
        if not np.isclose(recorded[name], row[name], rtol=0, atol=1e-6, equal_nan=True):
            raise CdlError(f"{path}: {name} is {recorded[name]}, in the table {row[name]}")
    for name, value in metrics(np.array(made["matrix"], float), made["test_images"]).items():
        if not np.isclose(recorded[name], value, equal_nan=True):
            raise CdlError(f"{path}: {name} is {recorded[name]}, from its matrix follows {value}")
    return f"{path}: the metrics follow from its matrix"


def _configuration(path: str, row: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    learner = _learner(path, made)
    same = ("role", "seed", "backbone", "query")
    wanted = {name: row[name] for name in same}
    given: dict[str, Any] = {name: getattr(learner, name) for name in same}
    wanted |= {"teacher": row["teacher"] or None, "distiller": row["distiller"]}
    given |= {"teacher": learner.teacher, "distiller": learner.distiller.name}
    wanted |= {"method": row["method"].split("+")[0]}
    given |= {"method": learner.method.name}
    artifacts.check_provenance(path, given, wanted)
    return f"{path}: the learner is the row's; every value stands there"


def _learner(path: str, made: Mapping[str, Any]) -> LearnerSpec:
    return LearnerSpec.from_json(made["learner"], f"{path}: learner")


def _predictions(run: RunFiles, made: Mapping[str, Any]) -> str:
    tasks = read_predictions(run).groupby("task")["correct"]
    accuracies, counts = (100 * tasks.mean()).tolist(), tasks.size().tolist()
    if counts != made["test_images"] or not np.allclose(accuracies, made["matrix"][-1]):
        raise CdlError(
            f"{run.predictions} gives {accuracies} % of {counts} images, the results have "
            f"{made['matrix'][-1]} % of {made['test_images']}"
        )
    return f"{run.predictions}: they give the matrix's last row"


@cache
def _intact(path: str) -> dict[str, Any]:
    return artifacts.check_artifact(path)


def _caches(paths: Iterable[str]) -> str:
    """Check the caches that exist: they may be deleted at any time."""
    there = [path for path in paths if os.path.exists(path)]
    for path in there:
        _intact(path)
    return ", ".join(there) or "no cache lies there"


def _page(page: str, record: str) -> str:
    if not os.path.exists(page) and not os.path.exists(record):
        return "not made yet"
    artifacts.check_files(record, page)
    return page


def _checkpoint(run: RunFiles, task: int, made: Mapping[str, Any], teacher: RunFiles | None) -> str:
    path = run.task(task).learner
    metadata = _intact(path)
    artifacts.check_files(Path(path).with_suffix(".json"), run.task(task).losses)
    sha256, evaluated = metadata["sha256"], made["checkpoints"]
    if sha256 != evaluated[task]:
        raise CdlError(f"{path} is {sha256[:12]}, but {evaluated[task][:12]} was evaluated")
    learnt = _learner(run.results, made).until(task).to_json()
    artifacts.check_provenance(path, metadata, {"task": task, "learner": learnt})
    inputs = {}
    if task:
        inputs["previous"] = evaluated[task - 1]
    if teacher is not None:
        inputs["teacher"] = _intact(teacher.task(task).learner)["sha256"]
    artifacts.check_provenance(path, metadata["inputs"], inputs)
    return f"{path} {sha256[:12]}"


def _backbone(results: ResultsFolder, name: str, made: Mapping[str, Any]) -> str:
    wanted = made["backbones"][name]
    for file in map(Path, results.backbones(name)):
        if read_json(file.with_suffix(".json"))["fingerprint"] == wanted:
            _intact(str(file))
            return f"{file} {wanted[:12]}"
    raise CdlError(f"no backbone {name!r} below {results.path} has the fingerprint {wanted[:12]}")


def _data(results: ResultsFolder, dataset: str, made: Mapping[str, Any], path: str) -> str:
    domains = _learner(path, made).stream.domains
    for packed in results.packed(dataset):
        splits = read_json(packed.manifest)["splits"]
        seen = {k: v for k, v in made["data"].items() if k != "unlabelled"}
        if digests(splits, made["classes"], domains) == seen:
            for split in splits:
                _packed(packed.folder, split)
            return f"{packed.manifest}: every image has its sha256"
    raise CdlError(
        f"no packed data of {dataset!r} below {results.path} have the run's fingerprints"
    )


@cache
def _packed(folder: str, split: str) -> None:
    index, _, _ = read_index(folder, split)
    check_images(folder, split, index, map_pixels(folder, split))
