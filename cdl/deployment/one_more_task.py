"""Train, align and evaluate a finished run on one more task, as the workflow's jobs do."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cdl.deployment.trained import TrainedStudent, find_backbone
from cdl.evaluation.evaluate import evaluate_run
from cdl.layout import ResultsFolder, RunFiles, record_of, trained_of
from cdl.runtime import artifacts
from cdl.runtime.jobs import Execution
from cdl.spec import LearnerSpec
from cdl.training.align_task import align_task
from cdl.training.task import learn_task

log = logging.getLogger(__name__)


def train_and_evaluate(
    run: Path,
    files: RunFiles,
    specs: tuple[LearnerSpec, ...],
    task: int,
    data: tuple[str, str | None],
    teacher: tuple[Mapping[str, Any] | None, str | None],
    execution: Execution,
) -> None:
    """Learn the task and evaluate on all tasks, with the functions of the workflow's jobs.

    Args:
        run: folder of the old run.
        files: files of the new run.
        specs: specification of the new run, and that without alignment, as its training has it.
        task: the new task, counted from 0.
        data: folders of packed data, labelled and unlabelled.
        teacher: results of the teacher's run and its checkpoint of the task.
        execution: device and other settings that change no number.
    """
    results, checkpoint = teacher
    teacher_spec = None if results is None else LearnerSpec.from_json(results["learner"])
    spec, trained_spec = (own.taught_by(teacher_spec) for own in specs)
    needed = _backbones_of(spec) | ({spec.teacher_query} if spec.teacher_query else set())
    names = needed | (set() if teacher_spec is None else _backbones_of(teacher_spec))
    hashes = artifacts.read_json(RunFiles(str(run)).results)["backbones"]
    hashes |= {} if results is None else results["backbones"]
    folder = ResultsFolder.of_run(run)
    paths = {name: find_backbone(folder, name, hashes.get(name)) for name in names}
    read: dict[str, Any] = {"data": data[0], "unlabelled": data[1], "teacher": checkpoint}
    read["backbones"] = paths
    new, previous = files.task(task), files.task(task - 1)
    log.info("training on task %d, %d epochs", task + 1, trained_spec.training.epochs)
    read["previous"] = previous.checkpoint(trained_spec.alignment is not None)
    teaches = teacher_spec if trained_spec.teacher else None
    outputs = new.learner, new.losses
    learn_task(trained_spec, task, *outputs, **read, teacher_spec=teaches, execution=execution)
    if spec.alignment is not None:
        log.info("aligning the heads")
        read |= {"trained": new.learner, "previous": previous.aligned, "queries": {}}
        read["before"] = previous.learner if spec.alignment.drift != "none" else None
        how: dict[str, Any] = {"trained_spec": trained_spec, "execution": execution}
        labeller = teacher_spec if spec.labelled_by_teacher else None
        align_task(spec, task, new.aligned, **read, **how, teacher_spec=labeller)
    log.info("evaluating all %d tasks", task + 1)
    evaluate_run(
        spec,
        files.results,
        files.predictions,
        data=data[0],
        checkpoints=[files.task(t).checkpoint(spec.alignment is not None) for t in range(task + 1)],
        backbones={name: paths[name] for name in needed},
        queries={},
        images_per_class=None,
        execution=execution,
    )


def _backbones_of(spec: LearnerSpec) -> set[str]:
    """Return the names of a learner's backbone and of the backbone of its query, if any."""
    return {spec.backbone, *([spec.query] if spec.method.facts.needs_query else [])}


def trained_specification(student: TrainedStudent) -> LearnerSpec:
    """Return the specification of a run without alignment, as its training has it."""
    if student.spec.alignment is None:
        return student.spec
    checkpoint = student.files.checkpoints(student.results)[-1]
    trained = trained_artifact(checkpoint)
    found = artifacts.read_json(record_of(trained))["learner"]
    return LearnerSpec.from_json(found, f"{record_of(trained)}: learner")


def trained_artifact(aligned: str) -> str:
    """Return the path of the trained learner of an aligned artifact."""
    return trained_of(aligned, artifacts.read_json(record_of(aligned))["trained"])
