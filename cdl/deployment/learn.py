"""Train a finished run on one more task; the result is a new run."""

import contextlib
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

import pandas as pd

from cdl.data.packing import extend
from cdl.data.stream import Stream
from cdl.deployment.new_classes import New, NewClasses, NewItems
from cdl.deployment.one_more_task import (
    train_and_evaluate,
    trained_artifact,
    trained_specification,
)
from cdl.deployment.teacher_of_run import check_classes, check_images, teacher_results_of
from cdl.deployment.trained import TrainedStudent
from cdl.evaluation.predictions import read_predictions
from cdl.layout import (
    RESERVED,
    STATES,
    PackedFiles,
    ResultsFolder,
    RunFiles,
    TaskFiles,
    packed_name,
)
from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError
from cdl.runtime.folders import new_folder
from cdl.runtime.jobs import DEFAULT, Execution
from cdl.runtime.registry import load
from cdl.spec import LearnerSpec, Unlabelled
from cdl.spec import Stream as StreamSpec

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.]{0,49}")


@dataclass(frozen=True)
class Learnt:
    """Result of learning one more task.

    run: folder of the new run.
    classes: new classes.
    before: accuracy on every old task before the new task, percent.
    after: accuracy on every task after it, percent.
    fell: old classes whose accuracy fell, with their accuracy before and after, percent, on the
        test images of the old run; the largest loss first.
    """

    run: str
    classes: tuple[str, ...]
    before: list[float]
    after: list[float]
    fell: dict[str, tuple[float, float]]

    def as_dict(self) -> dict[str, Any]:
        """Return the result for JSON."""
        return asdict(self)

    def text(self) -> str:
        """Return the result as text for the terminal."""
        lines = [f"{self.run}: learnt {', '.join(self.classes)}"]
        for task, accuracy in enumerate(self.after):
            before = f"{self.before[task]:.2f} % before, " if task < len(self.before) else ""
            lines.append(f"  task {task + 1}: {before}{accuracy:.2f} % now")
        fallen = [f"{name} {was:.1f} to {now:.1f} %" for name, (was, now) in self.fell.items()]
        lines.append(f"  old classes that became worse: {', '.join(fallen) or 'none'}")
        return "\n".join(lines)


def learn(
    run: Path,
    folder: Path,
    name: str,
    *,
    test: Path | None = None,
    teacher: Path | None = None,
    unlabelled: Path | None = None,
    execution: Execution = DEFAULT,
) -> Learnt:
    """Learn the classes of a folder as one more task, without training images of earlier tasks.

    Args:
        run: folder of a finished run, below its results folder.
        folder: training images in one subfolder per new class, or a CSV file of texts.
        name: folder of the new run in the results folder; the path below it is that of `run`.
        test: test items in the same layout; see `NewClasses.read`.
        teacher: run of the teacher that has learnt the same task; required for a distilled run,
            invalid for others.
        unlabelled: folder of unlabelled images at any depth, or a file with a text in each line,
            for which the teacher, or the student itself before the task, gives targets.
        execution: device and other settings that change no number.

    Raises:
        CdlError: an argument is invalid; raised before training starts and files are written.
    """
    student = TrainedStudent.open(run)
    results, task = student.results, student.model.task + 1
    target = _new_run_folder(run, name)
    teacher_results = teacher_results_of(student.spec, teacher, task)
    kind: NewItems = load(student.facts.new)()
    new = NewClasses.read(kind, folder, test, results["classes"])
    _check_learnable(student.spec, new, folder)
    if teacher_results is not None:
        check_classes(f"--teacher: {teacher}", teacher_results, student, new)
    old = student.packed()
    if old is None:
        raise CdlError(
            f"{run}: the packed data of its tasks are not in its results folder, so forgetting "
            "cannot be measured; copy them there"
        )
    images = _unlabelled_items(student.spec, kind, unlabelled)
    both = student.spec, trained_specification(student)
    specs = tuple(_specification(student, spec, new, bool(images)) for spec in both)
    before, execution = read_predictions(student.files), _resumable(execution, run)
    with contextlib.ExitStack() as made:  # all folders are complete at the end, or none exists
        files = RunFiles(str(made.enter_context(new_folder(target))))
        folder_of_data, data = _write_data(made, ResultsFolder.of_run(run), old, kind, new, name)
        unlabelled_data = None
        if images:
            unlabelled_data = _write_unlabelled(made, folder_of_data, data.manifest, kind, images)
        checkpoint = None
        if teacher is not None and teacher_results is not None:
            checkpoint = RunFiles(str(teacher)).checkpoints(teacher_results)[task]
            check_images(checkpoint, specs[0], task, data.manifest)
        _copy_checkpoints(student, files, specs, task)
        folders, theirs = (data.folder, unlabelled_data), (teacher_results, checkpoint)
        train_and_evaluate(run, files, specs, task, folders, theirs, execution)
        matrix, fell = _matrix(files), _fallen(before, read_predictions(files))
    return Learnt(str(target), new.names, matrix[task - 1][:task], matrix[task], fell)


def _matrix(run: RunFiles) -> list[list[float]]:
    """Read the accuracy matrix of a run."""
    matrix: list[list[float]] = artifacts.read_json(run.results)["matrix"]
    return matrix


def _fallen(before: pd.DataFrame, after: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Return the classes whose accuracy fell, with both accuracies, see `Learnt`."""
    same = after[after["image"].isin(before["image"])]  # old images keep their positions
    was, now = (100 * frame.groupby("class")["correct"].mean() for frame in (before, same))
    lost = (was - now).sort_values(ascending=False, kind="stable")
    return {str(name): (float(was[name]), float(now[name])) for name in lost.index[lost > 0]}


def _unlabelled_items(spec: LearnerSpec, kind: NewItems, path: Path | None) -> list[New]:
    """Return unlabelled items; raise `CdlError` if the run has no targets for them."""
    if path is None:
        return []
    if not spec.taught and not spec.reads_past:
        raise CdlError(
            "--unlabelled: is only used with a teacher, or by a distiller of the student's own "
            "past; omit it"
        )
    return kind.unlabelled(path)


def _resumable(execution: Execution, run: Path) -> Execution:
    """Return settings with a folder of states, so that a killed task resumes."""
    states = str(ResultsFolder.of_run(run).path / Path(STATES).name)
    return execution if execution.states else replace(execution, states=states)


def _new_run_folder(run: Path, name: str) -> Path:
    """Return the folder of the new run; raise `CdlError` if it exists or the name is invalid."""
    root = ResultsFolder.of_run(run).path
    if not _NAME.fullmatch(name) or name in RESERVED:
        raise CdlError(
            f"--output: invalid name {name!r}: expected up to 50 letters, digits, _ and ., and "
            f"none of the reserved names {', '.join(sorted(RESERVED))}"
        )
    target = Path(root, name, *run.resolve().relative_to(root.resolve()).parts[1:])
    if target.exists():
        raise CdlError(f"{target}: already exists; choose another name")
    return target


def _check_learnable(spec: LearnerSpec, new: NewClasses, folder: Path) -> None:
    """Check that the learner can learn the new classes.

    Raises:
        CdlError: the tasks of the run are domains, which add no classes; or there is a single class
            and the method only learns to distinguish the classes of one task.
    """
    if spec.stream.domains:
        raise CdlError(
            f"{folder}: new classes cannot be learnt by a run whose tasks are domains of the same "
            "classes; add a domain to its configuration or choose another run"
        )
    if len(new.names) == 1 and spec.method.facts.trains and spec.alignment is None:
        raise CdlError(
            f"{folder}: contains one class, {new.names[0]}; expected two or more, since a task "
            "learns to distinguish its classes; methods with alignment and ranpac need only one"
        )


def _specification(
    student: TrainedStudent, spec: LearnerSpec, new: NewClasses, unlabelled: bool
) -> LearnerSpec:
    """Return a specification of the old run with one more task.

    Classes are in the order in which they were learnt, and all images of a class are used. The
    batch size is at most an eighth of the training images, so that an epoch has several steps.
    """
    old_classes = student.results["classes"]
    sizes = Stream.learnt(old_classes, spec.stream.tasks).sizes
    batch_size = min(spec.training.batch_size, ceil(len(new.train) / 8))
    return replace(
        spec,
        stream=StreamSpec((*sizes, len(new.names)), (*old_classes, *new.names)),
        training=replace(spec.training, batch_size=batch_size, unlabelled_ratio=None),
        images_per_class=None,
        unlabelled=Unlabelled("every") if unlabelled else None,
        # settings of a study that do not apply to the user's images
        cache_dtype=None,
        labels=None,
        teacher_labels=None,
    )


def _write_data(
    made: contextlib.ExitStack,
    results: ResultsFolder,
    old: PackedFiles,
    kind: NewItems,
    new: NewClasses,
    name: str,
) -> tuple[Path, PackedFiles]:
    """Write the packed data of the new run: test images of all, training images of new classes.

    Returns:
        The folder of the data after the end of `made`, and the files until then.
    """
    manifest = artifacts.read_json(old.manifest)
    items = [[item[:2] for item in some] for some in (new.train, new.test)]
    folder = results.path / "data" / packed_name(name, {"old": manifest["splits"], "new": items})
    if Path(PackedFiles(str(folder)).manifest).exists():
        return folder, PackedFiles(str(folder))
    partial = made.enter_context(new_folder(folder))
    kind.pack(new.train, new.test, partial / "new", manifest["short_side"])
    extend(partial, Path(old.folder), partial / "new")
    shutil.rmtree(partial / "new")
    return folder, PackedFiles(str(partial))


def _write_unlabelled(
    made: contextlib.ExitStack, data: Path, manifest: str, kind: NewItems, items: Sequence[New]
) -> str:
    """Write unlabelled items as packed data; return their folder until the end of `made`.

    Args:
        made: as in `_write_data`.
        data: folder of the labelled items.
        manifest: their manifest.
        kind: of the run's modality.
        items: the unlabelled items.
    """
    sources = {"unlabelled": [item.sha256 for item in items]}
    folder = Path(packed_name(str(data), sources))
    if Path(PackedFiles(str(folder)).manifest).exists():
        return str(folder)
    partial = made.enter_context(new_folder(folder))
    kind.pack(items, items[:1], partial, artifacts.read_json(manifest)["short_side"])
    return str(partial)


def _copy_checkpoints(
    student: TrainedStudent, new: RunFiles, specs: tuple[LearnerSpec, ...], task: int
) -> None:
    """Copy the checkpoints of the old tasks, before and after the alignment.

    Their records get the specification of the new run; `learnt_as` keeps that of the old run.
    """
    spec, trained_spec = specs
    for t, source in enumerate(student.files.checkpoints(student.results)[:task]):
        target = new.task(t)
        Path(target.folder).mkdir(parents=True)
        if spec.alignment is not None:
            _copy_artifact(source, target.aligned, spec.until(t), trained=Path(target.learner).name)
            source = trained_artifact(source)
        losses = TaskFiles(str(Path(source).parent)).losses
        shutil.copyfile(losses, target.losses)
        _copy_artifact(source, target.learner, trained_spec.until(t), [target.losses])


def _copy_artifact(
    source: str, target: str, spec: LearnerSpec, files: Sequence[str] = (), **changed: str
) -> None:
    """Copy an artifact with another specification, and with other entries in its record."""
    state, metadata = artifacts.load(source)
    metadata.pop("sha256")
    original = metadata.get("learnt_as", {k: metadata[k] for k in ("learner", "inputs")})
    inputs = {k: v for k, v in metadata["inputs"].items() if k != "unlabelled"}
    updated = {"learner": spec.to_json(), "inputs": inputs, "learnt_as": original, **changed}
    artifacts.save(target, state, metadata | updated, files=files)
