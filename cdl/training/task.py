"""Learn one task of one learner, the job of the rules `train` and `distil`."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Required, TypedDict, Unpack

import pandas as pd
from torch import Tensor

from cdl.data.labels import learnt_from
from cdl.methods.heads import PrototypeHead
from cdl.models.build import build_learner, versions
from cdl.models.learner import MEMORY, Learner, memory_of
from cdl.models.operations import of_learner, of_query
from cdl.runtime import artifacts
from cdl.runtime.jobs import DEFAULT, Execution
from cdl.spec import LearnerSpec
from cdl.training.answers import TeacherAnswers, of_teacher
from cdl.training.checkpointing import State
from cdl.training.context import Query, TaskContext, no_query
from cdl.training.loop import per_epoch, train_task
from cdl.training.past import frozen_copy, with_past
from cdl.training.ranpac import solve_operations
from cdl.training.session import images_read, reading, session_head
from cdl.training.solving import Learnt, solve_task
from cdl.training.teacher import TeacherSource

log = logging.getLogger(__name__)
Numbers = dict[str, float]


class LearningFiles(TypedDict, total=False):
    """Files that learning a task reads, by their names in the rules.

    data: packed folder.
    backbones: artifacts of the frozen backbones to load, by name.
    previous: the learner's artifact of the previous task; None for task 0.
    queries: cache of the learner's queries; None computes them.
    teacher: the teacher's artifact of the same task; None without a teacher, or if `targets`
        is sufficient.
    teacher_queries: cache of the teacher's queries, if they are not those of the learner or it
        does not need any.
    targets: cache of the teacher's logits; with it the teacher's ViT is not needed.
    unlabelled: packed folder of unlabelled images; None without them.
    """

    data: Required[str]
    backbones: Required[Mapping[str, str]]
    previous: str | None
    queries: str | None
    teacher: str | None
    teacher_queries: str | None
    targets: str | None
    unlabelled: str | None


@dataclass(frozen=True)
class PreparedTask:
    """A learner at the start of its task, with its queries and its teacher.

    learner: the learner, with `start_task` done.
    query: source of its query for a batch.
    teacher: the teacher of its distiller; None without one.
    answers: the teacher that labels images; None without one.
    past: the learner after the previous task, if its distiller reads it.
    widths: width of its `query` and, with a teacher, of the `teacher_query`.
    memory: tensors of earlier tasks for later ones, see `Learner.load_state`.
    """

    learner: Learner
    query: Query
    teacher: TeacherSource | None
    widths: dict[str, int]
    memory: dict[str, Tensor]
    past: Learner | None = None
    answers: TeacherAnswers | None = None

    @property
    def tutor(self) -> Learner | None:
        """The teacher itself; None without one, or if its outputs are read from a cache."""
        source = self.teacher or self.answers
        return source.learner if source else None


def learn_task(
    spec: LearnerSpec,
    task: int,
    output: str,
    losses: str,
    *,
    teacher_spec: LearnerSpec | None = None,
    execution: Execution = DEFAULT,
    **files: Unpack[LearningFiles],
) -> None:
    """Learn one task and write its artifact and loss curve.

    Outputs of frozen models are read from the given caches; the others are computed.

    Args:
        spec: specification of the learner, stored in the artifact.
        task: counted from 0.
        output: artifact to write (.safetensors, and .json with the same name).
        losses: CSV file to write, see `cdl.training.loop.per_epoch`.
        teacher_spec: specification of the teacher; None without one.
        execution: how to compute. The saved state of a finished task is kept until its run is
            evaluated.
        **files: files to read.

    Raises:
        CdlError: an input is damaged or belongs to another configuration, or a loss is not
            finite. No file is written in this case.
        TypeError: a file has another name.
    """
    job: dict[str, Any] = {"task": task, "spec": spec.to_json()}
    teacher_spec = teacher_spec and teacher_spec.until(task)
    spec = spec.until(task).taught_by(teacher_spec)
    context = TaskContext.of_job(spec, task, files, LearningFiles, execution)
    prepared = _prepare(context, files, teacher_spec)
    context.place(prepared.learner, prepared.tutor, prepared.past)
    job |= {"inputs": context.fingerprints, "versions": versions(spec)}
    prompts, read = prepared.learner.prompts, reading(context, prepared.learner)
    prompts.before_training(task, read)
    with State(execution.states, job, execution.save_minutes) as state:
        learnt = _learn(context, prepared, state)
    prompts.after_training(task, read)
    prepared.learner.end_task(task)
    work = _work(context, prepared, files, learnt, teacher_spec)
    _write(context, prepared, learnt, state.key, work, output, losses)


def _prepare(
    context: TaskContext[LearnerSpec], files: LearningFiles, given: LearnerSpec | None
) -> PreparedTask:
    """Build the learner at the start of the task, with its teacher."""
    spec, task = context.spec, context.task
    teacher_spec = given or spec.answers
    width, query = context.query(spec.query, files.get("queries"))
    widths, source, answers = {"query": width}, None, None
    teacher = {"path": files.get("teacher"), "targets": files.get("targets")}
    if teacher_spec is not None and not spec.taught:
        answers = TeacherAnswers.open(context, teacher_spec, **teacher)
    elif teacher_spec is not None:
        teacher_query, teacher_queries = query, files.get("teacher_queries")
        if teacher_spec.query != spec.query or teacher_queries is not None:
            _, teacher_query = context.query(teacher_spec.query, teacher_queries)
        columns = spec.soft_columns
        source = TeacherSource.open(
            context, teacher_spec, teacher_query, **teacher, columns=columns
        )
        widths["teacher_query"] = source.query_width
    shape = source.shape if source else None
    learner = build_learner(spec, context.backbones[spec.backbone], widths, shape)
    memory, past = {}, None
    if (previous := files.get("previous")) is not None:
        state, metadata = context.checkpoint(previous, spec, task - 1)
        learner.load_state(state)
        if spec.distiller.facts.reads_past:
            before = build_learner(spec, context.backbones[spec.backbone], widths, shape)
            past = frozen_copy(before, state)
        memory = memory_of(state)
        context.fingerprints["previous"] = metadata["sha256"]
    if source is not None:
        learner.distiller.read_teacher(source.prompts)
    learner.start_task(task, context.stream.sizes[task], *spec.keys)
    if not learner.needs_query:
        query = no_query
    return PreparedTask(learner, query, source, widths, memory, past, answers)


def _learn(context: TaskContext[LearnerSpec], prepared: PreparedTask, state: State) -> Learnt:
    """Train or solve."""
    learner, spec = prepared.learner, context.spec
    if spec.method.facts.trains:
        return Learnt(*_train(context, prepared, state))
    session = []
    if learner.prompts.session(context.task):
        with session_head(context, learner):
            session = [_train(context, prepared, state)[0]]
    given = prepared.teacher, prepared.answers
    solved = solve_task(context, learner, *given, prepared.memory)
    solved.history["epoch"] += spec.training.epochs * len(session)
    return replace(solved, history=pd.concat([*session, solved.history], ignore_index=True))


def _train(
    context: TaskContext[LearnerSpec], prepared: PreparedTask, state: State
) -> tuple[pd.DataFrame, int]:
    """Train by gradient steps; return history and number of views."""
    batches, training = context.batches(), context.spec.training
    lr, betas, schedule = training.lr, training.betas, training.schedule
    assert lr is not None and betas is not None and schedule is not None, "it takes steps"
    teacher = prepared.teacher.output if prepared.teacher else None
    if prepared.past is not None:
        known = context.stream.classes(context.task).start
        teacher = with_past(teacher, prepared.past, context.task, known)
    history = train_task(
        prepared.learner,
        batches,
        query=prepared.query,
        teacher=teacher,
        task=context.task,
        classes=context.stream.classes(context.task),
        capture=context.compute.capture,
        state=state,
        epochs=training.epochs,
        lr=lr,
        betas=betas,
        schedule=schedule,
        sgd=training.sgd,
    )
    return history, len(history) * batches.images_per_step


def _work(
    context: TaskContext[LearnerSpec],
    prepared: PreparedTask,
    files: LearningFiles,
    learnt: Learnt,
    teacher_spec: LearnerSpec | None,
) -> Numbers:
    """Return the amount of work of the task, for the artifact's metadata.

    `images`: training views, over all epochs. `operations`: operations of this job, see
    `cdl.models.operations`. `forward`: operations of the learner's forward pass of one image.
    `answers`: teacher outputs that were read from a cache.
    """
    spec, learner, teacher = context.spec, prepared.learner, prepared.teacher
    images = learnt.images
    forward, backward = of_learner(learner, context.task, prepared.widths)
    if isinstance(learner.head, PrototypeHead):
        seen = context.stream.classes(context.task).stop
        width = learner.backbone.width
        operations = images * forward
        operations += sum(solve_operations(n, seen, width, learner.head) for n in learnt.solves)
        teacher_views = len(context.pixels) * spec.training.epochs
        if learner.prompts.session(context.task):
            batches = context.batches()
            views = spec.training.epochs * len(batches) * batches.images_per_step
            operations += views * (forward + backward)
    else:
        teacher_views, operations = images, images * (forward + backward)
    if learner.prompts.reads_task:
        operations += 2 * len(images_read(context)) * forward
    if learner.needs_query and files.get("queries") is None:
        operations += images * of_query(context.backbones[spec.query])
    if teacher is not None and teacher.learner is not None and teacher_spec is not None:
        name, width = teacher_spec.query, teacher.query_width
        shared = learner.needs_query and name == spec.query
        query_cached = shared or files.get("teacher_queries") is not None
        per_view = of_teacher(context, teacher.learner, name, width, query_cached)
        operations += teacher_views * per_view
    if prepared.past is not None:
        operations += images * forward
    cached = teacher_views if teacher is not None and teacher.learner is None else 0
    if prepared.answers is not None and learnt.assigned["pseudo_labels"]:
        computed, cached = prepared.answers.work()
        operations += computed
    return {"images": images, "operations": operations, "forward": forward, "answers": cached}


def _seen(context: TaskContext[LearnerSpec], prepared: PreparedTask, learnt: Learnt) -> Numbers:
    """Return the numbers of training views, and of images with and without a label."""
    labelled = int((context.labels >= 0).sum())
    used = len(learnt_from(context.labels, context.learns_unlabelled))
    unlabelled = max(used - labelled, learnt.assigned.get("pseudo_labels", 0))
    source = prepared.teacher or prepared.answers
    return {
        "views": learnt.images,
        "labelled": labelled,
        "unlabelled": unlabelled,
        **learnt.assigned,
        **(source.right if source else {}),
    }


def _write(
    context: TaskContext[LearnerSpec],
    prepared: PreparedTask,
    learnt: Learnt,
    state: str,
    work: dict[str, float],
    output: str,
    losses: str,
) -> None:
    """Write the loss curve, and the artifact with its provenance."""
    with artifacts.replacing(losses) as temporary:
        per_epoch(learnt.history).to_csv(temporary, index=False)
    shape = prepared.teacher.shape if prepared.teacher else None
    metadata = {
        "task": context.task,
        "learner": context.spec.to_json(),
        "teacher_query": context.spec.teacher_query,
        "inputs": context.fingerprints,
        "widths": prepared.widths,
        "teacher_shape": None if shape is None else {"width": shape.width, "depth": shape.depth},
        "trainable_parameters": sum(p.numel() for p in prepared.learner.learnables()),
        "work": work,
        "seen": _seen(context, prepared, learnt),
        **({"ridge_errors": learnt.errors} if learnt.errors else {}),
        "device": context.compute.name,
        "state": state,
        "versions": versions(context.spec),
    }
    memory = {MEMORY + name: tensor for name, tensor in learnt.memory.items()}
    artifacts.save(output, prepared.learner.state() | memory, metadata, files=[losses])
    log.info("wrote %s", Path(output))
