"""Checks of the teacher that `cdl learn` names for one more task of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cdl.data.stream import Stream
from cdl.deployment.new_classes import NewClasses
from cdl.deployment.trained import TrainedStudent
from cdl.layout import RunFiles, record_of
from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError
from cdl.spec import LearnerSpec


def teacher_results_of(spec: LearnerSpec, teacher: Path | None, task: int) -> dict[str, Any] | None:
    """Return the results of the teacher's run; None for a learner without a teacher.

    Raises:
        CdlError: the run cannot learn more tasks, or the teacher is missing or does not match.
    """
    if spec.n_tasks is not None:
        raise CdlError(
            f"methods.{spec.method.name}.pool: is divided among {spec.n_tasks} tasks that were "
            "known in advance; only runs with pool_per_task can learn more tasks"
        )
    if spec.teacher is None:
        if teacher is not None:
            raise CdlError(
                f"--teacher: {teacher} is not used, since this run has no teacher; omit it"
            )
        return None
    if spec.answers is not None:
        raise CdlError(
            f"{spec.teacher}: has no answers for the new task; a student that was distilled from "
            "answers cannot learn a task by `cdl learn`; run a configuration with the new task"
        )
    if teacher is None:
        raise CdlError(
            f"--teacher: is missing; this run was distilled from {spec.teacher} with "
            f"{spec.distiller.name}; let the teacher's run learn the task first and pass its folder"
        )
    found = artifacts.read_json(RunFiles(str(teacher)).results)
    teacher_spec = LearnerSpec.from_json(found["learner"], f"{teacher}: learner")
    if (teacher_spec.role, teacher_spec.backbone) != ("teacher", spec.teacher):
        raise CdlError(
            f"--teacher: {teacher} is not a run of the teacher {spec.teacher}, as before"
        )
    if len(found["checkpoints"]) <= task:
        raise CdlError(
            f"--teacher: {teacher} has not learnt the new task; run cdl learn on it with the same "
            "--task first"
        )
    return found


def check_classes(
    name: str, found: Mapping[str, Any], student: TrainedStudent, new: NewClasses
) -> None:
    """Raise `CdlError` unless the teacher has learnt the same classes in the same tasks."""
    old = student.results["classes"]
    sizes = (*Stream.learnt(old, student.spec.stream.tasks).sizes, len(new.names))
    learnt = found["classes"]
    theirs = Stream.learnt(learnt, LearnerSpec.from_json(found["learner"]).stream.tasks).sizes
    expected = [*old, *new.names]
    if learnt[: len(expected)] != expected or theirs[: len(sizes)] != sizes:
        others = [mine for mine in expected if mine not in learnt]
        what = f"has not learnt {others[0]!r}" if others else "learnt them in another order"
        raise CdlError(
            f"{name} {what}; expected a run with the classes "
            f"{', '.join(map(repr, expected))} in this order: run cdl learn on "
            "the teacher's run with the same --task and pass the new run"
        )


def check_images(checkpoint: str, spec: LearnerSpec, task: int, manifest: str) -> None:
    """Raise `CdlError` unless the teacher has learnt the task from the same images."""
    packed, made = artifacts.read_json(manifest), artifacts.read_json(record_of(checkpoint))
    stream = Stream.build(packed["classes"], spec.stream.tasks, spec.stream.class_order, spec.seed)
    now = stream.digest(packed["splits"]["train"], packed["classes"], task)
    if made["inputs"]["data"] != now:
        raise CdlError(
            f"--teacher: {checkpoint} was trained on other images of the new classes; run cdl "
            "learn on the teacher's run with the same --task and pass the new run"
        )
