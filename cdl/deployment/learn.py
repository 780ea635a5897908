"""A finished run learns one more task: the result is a run like any other."""

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

from cdl.data.packing import extend
from cdl.data.stream import Stream
from cdl.deployment.new_classes import NewClasses, images_below, pack_unlabelled
from cdl.deployment.trained import TrainedStudent, find_backbone
from cdl.evaluation.evaluate import EvaluationInputs, evaluate_run
from cdl.layout import RESERVED, PackedFiles, ResultsFolder, RunFiles, packed_name
from cdl.runtime import artifacts
from cdl.runtime.artifacts import fingerprint_file
from cdl.runtime.errors import CdlError
from cdl.runtime.jobs import DEFAULT, Execution
from cdl.spec import LearnerSpec, Unlabelled
from cdl.spec import Stream as StreamSpec
from cdl.training.task import TaskInputs, learn_task

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.]{0,49}")


@dataclass(frozen=True)
class Learnt:
    """What one more task did.

    run: folder of the new run.
    classes: new ones.
    before: accuracy on every old task before it, percent.
    after: on every task after it.
    """

    run: str
    classes: tuple[str, ...]
    before: list[float]
    after: list[float]

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)

    def text(self) -> str:
        """Return it for people."""
        lines = [f"{self.run}: learnt {', '.join(self.classes)}"]
        for task, accuracy in enumerate(self.after):
            before = f"{self.before[task]:.2f} % before, " if task < len(self.before) else ""
            lines.append(f"  task {task + 1}: {before}{accuracy:.2f} % now")
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
    """Learn the classes of a folder as one more task; no image of an earlier task is read again.

    Args:
        run: of a finished run, below its folder of results.
        folder: one folder of images for each new class.
        name: of what is made, beside the names of configurations: its run has the run's place
            below it.
        test: folders of test images; see `NewClasses.read`.
        teacher: run of its teacher, which has learnt the same task; a run that was taught needs
            one, and no other can have one.
        unlabelled: further images, at any depth, of which the teacher alone says something.
        execution: how to compute.

    Raises:
        CdlError: something does not fit; said before anything is learnt or written.
    """
    student = TrainedStudent.open(run)
    results, task = student.results, student.model.task + 1
    target = _target(run, name)
    tutor = _teacher(student.spec, teacher, task)
    new = NewClasses.read(folder, test, results["classes"])
    _tell_apart(student.spec, new, folder)
    old = student.packed()
    if old is None:
        raise CdlError(
            f"{run}: the test images of its tasks are not below its folder of results, so nothing "
            "could be said of what it keeps; copy its packed data there"
        )
    if unlabelled is not None and tutor is None:
        raise CdlError("--unlabelled: a teacher alone says something of them; leave them out")
    further = [] if unlabelled is None else images_below(unlabelled)
    spec, files = _specification(student, new, bool(further)), RunFiles(str(target))
    data = _pack(ResultsFolder.of_run(run), old, new, name)
    beside = _pack_further(data, further) if further else None
    try:
        _copy(student.files, files, spec, task)
        teachers = None if teacher is None else RunFiles(str(teacher)).task(task).learner
        _learn(run, files, spec, task, (data.folder, beside), (tutor, teachers), execution)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    matrix = artifacts.read_json(files.results)["matrix"]
    return Learnt(files.folder, new.names, matrix[task - 1][:task], matrix[task])


def _learn(
    run: Path,
    files: RunFiles,
    spec: LearnerSpec,
    task: int,
    data: tuple[str, str | None],
    teacher: tuple[Mapping[str, Any] | None, str | None],
    execution: Execution,
) -> None:
    """Learn the task and evaluate all, as the workflow's jobs do.

    Args:
        run: the old one.
        files: of the new one.
        spec: its specification.
        task: counted from 0.
        data: packed folders, with labels and without.
        teacher: its results and its artifact of the task.
        execution: how to compute.
    """
    tutor, artifact = teacher
    theirs = None if tutor is None else LearnerSpec.from_json(tutor["learner"])
    spec = spec.taught_by(theirs)
    mapped = set() if spec.teacher_query is None else {spec.teacher_query}
    needs = {spec.backbone, *_queries(spec), *mapped}
    known = artifacts.read_json(RunFiles(str(run)).results)["backbones"]
    taught = set() if theirs is None else {theirs.backbone, *_queries(theirs)}
    known |= {} if tutor is None else tutor["backbones"]
    folder = ResultsFolder.of_run(run)
    paths = {name: find_backbone(folder, name, known.get(name)) for name in needs | taught}
    inputs = TaskInputs(
        data=data[0],
        backbones=paths,
        previous=files.task(task - 1).learner,
        teacher=artifact,
        unlabelled=data[1],
    )
    mine, how = files.task(task), {"execution": execution}
    learn_task(spec, task, inputs, mine.learner, mine.losses, teacher_spec=theirs, **how)
    checkpoints = [files.task(t).learner for t in range(task + 1)]
    evaluated = EvaluationInputs(data[0], checkpoints, {n: paths[n] for n in needs}, {})
    evaluate_run(
        spec,
        evaluated,
        files.results,
        files.predictions,
        images_per_class=None,
        execution=execution,
    )


def _queries(spec: LearnerSpec) -> set[str]:
    """Return the backbone whose query a learner reads, if it reads one."""
    return {spec.query} if spec.method.facts.needs_query else set()


def _target(run: Path, name: str) -> Path:
    """Return the folder of the new run, which must not exist."""
    root = ResultsFolder.of_run(run).path
    if not _NAME.fullmatch(name) or name in RESERVED:
        raise CdlError(
            f"--output: {name!r} cannot be a name in {root}; needed are up to 50 letters, digits, "
            "_ and ., and no name that is reserved"
        )
    target = Path(root, name, *run.resolve().relative_to(root.resolve()).parts[1:])
    if target.exists():
        raise CdlError(f"{target}: exists and is kept; take another name")
    return target


def _teacher(spec: LearnerSpec, teacher: Path | None, task: int) -> dict[str, Any] | None:
    """Return the results of a teacher that fits, None for a learner that has none."""
    if spec.n_tasks is not None:
        raise CdlError(
            f"methods.{spec.method.name}.pool: {spec.n_tasks} tasks, known beforehand, "
            "share it; only what was learnt with pool_per_task learns more"
        )
    if spec.teacher is None:
        if teacher is not None:
            raise CdlError(f"--teacher: {teacher}, but this run was not taught; leave it out")
        return None
    if teacher is None:
        raise CdlError(
            f"--teacher: is missing; {spec.teacher} taught this run with "
            f"{spec.distiller.name}: let its run learn the task first, and name that"
        )
    found = artifacts.read_json(RunFiles(str(teacher)).results)
    theirs = LearnerSpec.from_json(found["learner"], f"{teacher}: learner")
    if (theirs.role, theirs.backbone) != ("teacher", spec.teacher):
        raise CdlError(f"--teacher: {teacher} is no teacher {spec.teacher}, which taught before")
    if len(found["checkpoints"]) <= task:
        raise CdlError(
            f"--teacher: {teacher} has not learnt the new task; let it learn the same folder first"
        )
    return found


def _tell_apart(spec: LearnerSpec, new: NewClasses, folder: Path) -> None:
    """Raise `CdlError` for a single class where telling apart those of the task is all there is.

    And for a learner whose tasks are domains, which bring no classes.
    """
    if spec.stream.domains:
        raise CdlError(
            f"{folder}: its classes cannot be learnt by a run whose tasks are domains, which have "
            "the same classes; append a domain to its configuration, or name another run"
        )
    if len(new.names) == 1 and spec.method.facts.trains and spec.alignment is None:
        raise CdlError(
            f"{folder} holds one class, {new.names[0]}: a task learns to tell its classes apart; "
            "needed are two or more, or a run whose method has alignment, or ranpac"
        )


def _specification(student: TrainedStudent, new: NewClasses, further: bool) -> LearnerSpec:
    """Return what fixes the new run: that of the old one with one more task.

    Classes are named in the order in which they were learnt, all images of a class count, and a
    step takes an eighth of them at most, so that few images are learnt in several steps, too.
    """
    spec, known = student.spec, student.results["classes"]
    sizes = Stream.learnt(known, spec.stream.tasks).sizes
    batch_size = min(spec.training.batch_size, ceil(len(new.train) / 8))
    return replace(
        spec,
        stream=StreamSpec((*sizes, len(new.names)), (*known, *new.names)),
        training=replace(spec.training, batch_size=batch_size, unlabelled_ratio=None),
        images_per_class=None,
        unlabelled=Unlabelled("every") if further else None,
        # of a study, and without meaning for images that a user brings
        cache_dtype=None,
        labels=None,
        teacher_labels=None,
    )


def _pack(results: ResultsFolder, old: PackedFiles, new: NewClasses, name: str) -> PackedFiles:
    """Write the data of the new run: test images of all classes, training images of new ones."""
    manifest = artifacts.read_json(old.manifest)
    images = [(i.split, i.label, fingerprint_file(i.path)) for i in (*new.train, *new.test)]
    folder = results.path / "data" / packed_name(name, {"old": manifest["splits"], "new": images})
    packed = PackedFiles(str(folder))
    if Path(packed.manifest).exists():
        return packed
    alone = folder.with_name(f"{folder.name}.new")
    try:
        new.pack(alone, manifest["short_side"])
        extend(folder, Path(old.folder), alone)
    finally:
        shutil.rmtree(alone, ignore_errors=True)
    return packed


def _pack_further(data: PackedFiles, images: Sequence[Path]) -> str:
    """Write images without labels beside packed data; return their folder."""
    made_of = {"unlabelled": [fingerprint_file(image) for image in images]}
    folder = Path(packed_name(data.folder, made_of))
    pack_unlabelled(images, folder, artifacts.read_json(data.manifest)["short_side"])
    return str(folder)


def _copy(old: RunFiles, new: RunFiles, spec: LearnerSpec, task: int) -> None:
    """Copy what was learnt: each artifact says what it is part of now, and what it was."""
    for t in range(task):
        mine, theirs = new.task(t), old.task(t)
        state, metadata = artifacts.load(theirs.learner)
        metadata.pop("sha256")
        was = metadata.get("learnt_as", {k: metadata[k] for k in ("learner", "inputs")})
        inputs = {k: v for k, v in metadata["inputs"].items() if k != "unlabelled"}
        Path(mine.folder).mkdir(parents=True)
        shutil.copyfile(theirs.losses, mine.losses)
        now = {"learner": spec.until(t).to_json(), "inputs": inputs}
        about = {**metadata, **now, "learnt_as": was}
        artifacts.save(mine.learner, state, about, files=[mine.losses])
