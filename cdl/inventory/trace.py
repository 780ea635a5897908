"""Show the provenance of a table cell, and check every step.

A row of results.csv has the folder of its run; results.json there has matrix, metrics,
specification and the sha256 of the checkpoints; the JSON file of a checkpoint has the fingerprints
of the data, the backbones, the teacher's checkpoint and the checkpoint of the previous task. Caches
of the backbones and of the teacher, loss curves and the page are compared with their records. A
file that is absent while its record is there, as in an archive of the records alone, is reported as
not included, and the chain of the records is checked. Needs neither torch nor the configuration.
"""

import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cdl.data.order import digests
from cdl.data.packing import check_images, map_pixels, modality_in, read_index
from cdl.evaluation.metrics import metrics
from cdl.evaluation.predictions import read_predictions
from cdl.inventory.naming import did_you_mean, elsewhere
from cdl.layout import ResultsFolder, RunFiles, TaskFiles, record_of, trained_of
from cdl.reporting.columns import METRICS
from cdl.reporting.tables import read
from cdl.runtime import artifacts
from cdl.runtime.artifacts import fingerprint, read_json
from cdl.runtime.errors import CdlError
from cdl.spec import LearnerSpec

_NOT_INCLUDED = "; not included: "


class Link(NamedTuple):
    """One step of the provenance.

    Attributes:
        what: kind of the step, such as `table` or `task 0`.
        holds: whether the check has passed.
        text: path of the file and the names of absent files, or the error message.
    """

    what: str
    holds: bool
    text: str

    @property
    def mark(self) -> str:
        """`ok`, `BROKEN`, or `absent` if only the records could be checked."""
        return ("absent" if _NOT_INCLUDED in self.text else "ok") if self.holds else "BROKEN"


def _with_absent(text: str, *files: str) -> str:
    """Return the text of a link, and the names of those files that do not exist."""
    absent = [os.path.basename(file) for file in files if not os.path.exists(file)]
    return text + _NOT_INCLUDED * bool(absent) + ", ".join(absent)


def trace(cell: str, results: ResultsFolder) -> dict[str, list[Link]]:
    """Return the provenance of one or several cells.

    Args:
        cell: `dataset/method/learner/seed`, with or without parent folders, or the beginning of
            it, such as `digits/l2p` for several runs.
        results: folder of the workflow's results.

    Returns:
        Links of each run by its folder, table first; a damaged table is a link of every run.

    Raises:
        CdlError: there is no table, or no row matches the cell.
    """
    _checked_artifact.cache_clear()
    _check_packed.cache_clear()
    rows: dict[str, _Row] = {}
    damaged: list[Link] = []
    for table, protocols in results.tables():
        try:
            for row in read(table, protocols).to_dict("records"):
                rows[row["run"]] = _Row(table, protocols, row)
        except CdlError as error:
            damaged.append(Link("table", False, str(error)))
    found = [run for run in rows if _matches(cell, run)]
    if damaged and not found:
        return {cell: damaged}
    if not rows:
        raise CdlError(
            f"{results.path}: contains no table; run `cdl run CONFIG` first{elsewhere()}"
        )
    if not found:
        near = did_you_mean(cell, rows)
        raise CdlError(f"{cell!r} is not a cell of a table{near}; expected one such as {min(rows)}")
    return {run: [*damaged, *_links(results, rows[run])] for run in found}


class _Row(NamedTuple):
    """A row of a table."""

    table: Path
    protocols: Path
    values: Mapping[Hashable, Any]


def _matches(cell: str, run: str) -> bool:
    """Return whether a cell is the beginning of a run's folder, without up to two parents."""
    wanted, parts = Path(cell).parts, Path(run).parts
    if len(wanted) > 1 and wanted[-1].isdigit():
        wanted = (*wanted[:-1], f"seed{wanted[-1]}")

    def begins(part: str, word: str) -> bool:  # `kd` means kd-... rather than kd_prompt-...
        return part == word or part.startswith(f"{word}-")

    return bool(wanted) and any(
        len(parts[i:]) >= len(wanted) and all(map(begins, parts[i:], wanted)) for i in range(3)
    )


def _links(results: ResultsFolder, at: _Row) -> Iterator[Link]:
    """Yield all steps of the provenance of a row, checked."""
    row = at.values

    def link(what: str, function: Callable[..., str], *arguments: Any) -> Link:
        """Call a check, which returns the text of the link, or raises."""
        try:
            return Link(what, True, function(*arguments))
        except CdlError as error:
            return Link(what, False, str(error))
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            return Link(what, False, f"cannot be checked: {type(error).__name__} {error}")

    run = results.run(row["run"])
    accuracy = f"final average accuracy {row['final_average_accuracy']:.2f}"
    yield Link("table", True, f"{at.table}: {accuracy}, seed {row['seed']}")
    yield link("protocol", _check_protocol, at.protocols, row)
    yield link("results", _check_metrics, run.results, row)
    try:
        made = read_json(run.results)
    except CdlError:
        return  # the other links need this file
    yield link("configuration", _check_configuration, run.results, row, made)
    yield link("predictions", _check_predictions, run, made)
    teacher = results.run(row["teacher_run"]) if row["teacher_run"] else None
    for task in range(len(made["checkpoints"])):
        yield link(f"task {task}", _check_checkpoint, run, task, made, teacher)
        if teacher is not None:
            yield link(f"targets {task}", _check_targets, run.results, made, teacher, task)
    for name in made["backbones"]:
        yield link("backbone", _check_backbone, results, name, made)
        yield link("queries", _check_queries, results, name, run.results, made)
    dataset = row["dataset"].partition("+")[0]  # its variants share the name of packed data
    yield link("data", _check_data, results, dataset, made, run.results)
    yield link("page", _check_page, *results.page(row["run"]))


def _check_protocol(path: Path, row: Mapping[str, Any]) -> str:
    hashed = fingerprint(read_json(path)[row["protocol"]])[:8]
    if hashed != row["protocol"]:
        raise CdlError(f"{path}: the entry {row['protocol']} has the hash {hashed}")
    return f"{path}: {hashed}"


def _check_metrics(path: str, row: Mapping[str, Any]) -> str:
    made = read_json(path)
    recorded = {k: np.nan if v is None else v for k, v in made["metrics"].items()}
    for name in recorded.keys() & row.keys() & set(METRICS):
        if not np.isclose(recorded[name], row[name], rtol=0, atol=1e-6, equal_nan=True):
            raise CdlError(f"{path}: {name} is {recorded[name]}, but {row[name]} in the table")
    for name, value in metrics(np.array(made["matrix"], float), made["test_images"]).items():
        if not np.isclose(recorded[name], value, equal_nan=True):
            raise CdlError(f"{path}: {name} is {recorded[name]}, but its matrix gives {value}")
    return f"{path}: metrics agree with the matrix"


def _check_configuration(path: str, row: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    learner = _learner(path, made)
    same = ("role", "seed", "backbone", "query")
    wanted = {name: row[name] for name in same}
    given: dict[str, Any] = {name: getattr(learner, name) for name in same}
    wanted |= {"teacher": row["teacher"] or None, "distiller": row["distiller"]}
    given |= {"teacher": learner.teacher, "distiller": learner.distiller.name}
    wanted |= {"method": row["method"].split("+")[0]}
    given |= {"method": learner.method.name}
    artifacts.check_provenance(path, given, wanted)
    return f"{path}: the specification agrees with the row"


def _learner(path: str, made: Mapping[str, Any]) -> LearnerSpec:
    return LearnerSpec.from_json(made["learner"], f"{path}: learner")


def _check_predictions(run: RunFiles, made: Mapping[str, Any]) -> str:
    if not os.path.exists(run.predictions):
        return _with_absent(run.results, run.predictions)
    tasks = read_predictions(run).groupby("task")["correct"]
    accuracies, counts = (100 * tasks.mean()).tolist(), tasks.size().tolist()
    if counts != made["test_images"] or not np.allclose(accuracies, made["matrix"][-1]):
        raise CdlError(
            f"{run.predictions} gives {accuracies} % of {counts} examples, but the results have "
            f"{made['matrix'][-1]} % of {made['test_images']}"
        )
    return f"{run.predictions}: accuracies agree with the last row of the matrix"


@cache
def _checked_artifact(path: str) -> dict[str, Any]:
    """Return an artifact's metadata, checked; its record alone, if the tensors are absent."""
    present = os.path.exists(path)
    return artifacts.check_artifact(path) if present else read_json(record_of(path))


def _check_caches(paths: Iterable[str]) -> str:
    """Check the caches that exist; they may be deleted at any time."""
    existing = [path for path in paths if os.path.exists(path)]
    for path in existing:
        _checked_artifact(path)
    return ", ".join(existing) or "none, or deleted, as caches may be"


def _check_queries(results: ResultsFolder, name: str, path: str, made: Mapping[str, Any]) -> str:
    """Check the cached queries of a backbone that this run or its evaluation reads."""
    learner = _learner(path, made)
    after = [learner.until(task) for task in range(len(made["checkpoints"]))]
    specs = [s.queries(name).to_json() for s in after]
    specs += [s.queries(name, "held_out").to_json() for s in after]
    specs += [learner.test_queries(name, made["test_images_per_class"]).to_json()]
    return _check_caches(p for p in results.queries(name) if _cached_spec(p) in [*specs, None])


def _check_targets(path: str, made: Mapping[str, Any], teacher: RunFiles, task: int) -> str:
    """Check the cached targets of a teacher that this run reads for a task."""
    learner, theirs = _learner(path, made).until(task), teacher.task(task)
    taught = _learner(teacher.results, read_json(teacher.results)).until(task)
    how, columns = learner.labelling, {learner.soft_columns}
    at_test = how is not None and how.answers == "test"
    columns |= {how.columns} if how is not None and not at_test else set()
    specs = [learner.targets(taught, which).to_json() for which in columns]
    if how is not None and at_test:
        specs.append(learner.targets(taught, how.columns, "held_out").to_json())
    files = [theirs.targets, theirs.targets_seen, theirs.targets_test, theirs.targets_test_seen]
    return _check_caches(p for p in files if _cached_spec(p) in [*specs, None])


def _cached_spec(path: str) -> Any:
    """Return the specification of a cache; None if its record is damaged, which is reported."""
    try:
        return read_json(record_of(path)).get("spec")
    except CdlError:
        return None


def _check_page(page: str, record: str) -> str:
    if not os.path.exists(page) and not os.path.exists(record):
        return "not made yet"
    artifacts.check_files(record, page)
    return page


def _check_checkpoint(
    run: RunFiles, task: int, made: Mapping[str, Any], teacher: RunFiles | None
) -> str:
    path = run.checkpoints(made)[task]
    metadata = _checked_artifact(path)
    sha256, evaluated = metadata["sha256"], made["checkpoints"]
    if sha256 != evaluated[task]:
        raise CdlError(
            f"{path} has the sha256 {sha256[:12]}, but {evaluated[task][:12]} was evaluated"
        )
    learnt = _learner(run.results, made).until(task).to_json()
    artifacts.check_provenance(path, metadata, {"task": task, "learner": learnt})
    inputs = {"previous": evaluated[task - 1]} if task else {}
    artifacts.check_provenance(path, metadata["inputs"], inputs)
    trained = _check_trained(path, metadata)
    artifacts.check_files(record_of(trained), TaskFiles(str(Path(trained).parent)).losses)
    if teacher is not None:
        theirs = teacher.checkpoints(read_json(teacher.results))[task]
        _check_teacher(theirs, {path: metadata, trained: _checked_artifact(trained)})
    both = path if trained == path else f"{path} from {trained}"
    return _with_absent(f"{both} {sha256[:12]}", path)


def _check_trained(path: str, metadata: Mapping[str, Any]) -> str:
    """Check the artifact that an aligned one was made from; return its path, or `path`."""
    if "trained" not in metadata:
        return path
    trained = trained_of(path, metadata["trained"])
    made = {"trained": _checked_artifact(trained)["sha256"]}
    artifacts.check_provenance(path, metadata["inputs"], made)
    return trained


def _check_teacher(teacher: str, made: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that artifacts were made with a teacher's artifact, and that at least one was."""
    sha256 = _checked_artifact(teacher)["sha256"]
    taught = {path: own["inputs"] for path, own in made.items() if "teacher" in own["inputs"]}
    for path, inputs in taught.items():
        artifacts.check_provenance(path, inputs, {"teacher": sha256})
    if not taught:
        raise CdlError(f"{min(made)} and its record do not name a teacher; expected {teacher}")


def _check_backbone(results: ResultsFolder, name: str, made: Mapping[str, Any]) -> str:
    wanted = made["backbones"][name]
    for record in results.backbone_records(name):
        if read_json(record)["fingerprint"] == wanted:
            file = str(record.with_suffix(".safetensors"))
            _checked_artifact(file)
            return _with_absent(f"{file} {wanted[:12]}", file)
    raise CdlError(f"no backbone {name!r} below {results.path} has the fingerprint {wanted[:12]}")


def _check_data(results: ResultsFolder, dataset: str, made: Mapping[str, Any], path: str) -> str:
    domains = _learner(path, made).stream.domains
    for packed in results.packed(dataset):
        splits = read_json(packed.manifest)["splits"]
        seen = {k: v for k, v in made["data"].items() if k != "unlabelled"}
        if digests(splits, made["classes"], domains) == seen:
            files = [file for split in splits for file in packed.split(split)]
            if not all(map(os.path.exists, files)):
                return _with_absent(packed.manifest, *files)
            for split in splits:
                _check_packed(packed.folder, split)
            return f"{packed.manifest}: all items agree with their sha256"
    raise CdlError(
        f"no packed data of {dataset!r} below {results.path} have the run's fingerprints"
    )


@cache
def _check_packed(folder: str, split: str) -> None:
    index, _, _ = read_index(folder, split)
    check_images(folder, split, index, map_pixels(folder, split), modality_in(folder))
