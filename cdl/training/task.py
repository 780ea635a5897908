"""One task of one learner, from artifacts to an artifact: what the rules train and distil run."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from cdl.data.cached import CachedOutputs
from cdl.data.labels import learnt_from
from cdl.methods.heads import PrototypeHead
from cdl.models.build import build_learner, versions
from cdl.models.learner import MEMORY, Learner
from cdl.models.operations import of_learner, of_query
from cdl.runtime import artifacts
from cdl.runtime.jobs import DEFAULT, Execution
from cdl.spec import LearnerSpec
from cdl.training.alignment import (
    align_learner,
    alignment_operations,
    remembered,
    restore_trained,
)
from cdl.training.checkpointing import State
from cdl.training.context import Query, TaskContext, folders_of, no_query
from cdl.training.features import TestQuery, teachers_answers
from cdl.training.loop import per_epoch, train_task
from cdl.training.ranpac import solve_operations, solve_task
from cdl.training.teacher import TeacherSource

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TaskInputs:
    """Paths of all that one task is learnt from.

    data: packed folder.
    backbones: artifacts of the frozen ViTs that are loaded, by name.
    previous: the learner's artifact of the task before; None for task 0.
    queries: cache of the learner's queries; None computes them.
    teacher: the teacher's artifact of the same task; None without a teacher, or where its
        targets say all that is needed.
    teacher_queries: cache of the teacher's queries if they are not the learner's, or it reads none.
    targets: cache of the teacher's logits; with it the teacher's ViT is not needed.
    unlabelled: packed folder of further images; None without them.
    aligning: caches of the queries that alignment reads, in the order of their backbones' names;
        without any they are computed.
    """

    data: str
    backbones: Mapping[str, str]
    previous: str | None = None
    queries: str | None = None
    teacher: str | None = None
    teacher_queries: str | None = None
    targets: str | None = None
    unlabelled: str | None = None
    aligning: Sequence[str] = ()

    @classmethod
    def of_job(cls, inputs: Any, names: Sequence[str]) -> "TaskInputs":
        """Read a rule's input: `data` files, `backbones` in the order of `names`, and the rest."""
        optional = ("previous", "queries", "teacher", "teacher_queries", "targets")
        return cls(
            **folders_of(inputs),
            backbones=dict(zip(names, inputs.backbones, strict=True)),
            aligning=inputs.get("aligning", ()),
            **{name: inputs.get(name) for name in optional},
        )


@dataclass(frozen=True)
class _Lesson:
    """A learner ready for its task, with what it reads of a batch.

    `memory` is what earlier tasks left for later ones, see `Learner.load_state`;
    `aligning` names the backbones whose queries alignment reads, of the learner's prompts and of
    the teacher's if a distiller maps these; `known` are those of them that are cached, by name.
    """

    learner: Learner
    query: Query
    teacher: TeacherSource | None
    widths: dict[str, int]
    memory: dict[str, Tensor]
    aligning: dict[str, str]
    known: dict[str, CachedOutputs]


def learn_task(
    spec: LearnerSpec,
    task: int,
    inputs: TaskInputs,
    output: str,
    losses: str,
    *,
    teacher_spec: LearnerSpec | None = None,
    execution: Execution = DEFAULT,
) -> None:
    """Learn one task and write its artifact and loss curve.

    What frozen models say of a view is read from a cache where one is given, else computed.

    Args:
        spec: specification of the learner, stored in the artifact.
        task: counted from 0.
        inputs: what it is learnt from.
        output: artifact to write (.safetensors; .json beside it).
        losses: CSV to write, see `cdl.training.loop.per_epoch`.
        teacher_spec: specification of the teacher; None without one.
        execution: how to compute. The state of a finished task stays until its run is evaluated.

    Raises:
        CdlError: an input is damaged or belongs to another configuration, or a loss is not
            finite; then nothing is written.
    """
    job: dict[str, Any] = {"task": task, "spec": spec.to_json()}
    teacher_spec = teacher_spec and teacher_spec.until(task)
    spec = spec.until(task).taught_by(teacher_spec)
    context = TaskContext.open(
        spec, task, inputs.data, inputs.backbones, execution, unlabelled=inputs.unlabelled
    )
    lesson = _prepare(context, inputs, teacher_spec)
    context.place(lesson.learner, lesson.teacher.learner if lesson.teacher else None)
    job |= {"inputs": context.fingerprints, "versions": versions()}
    with State(execution.states, job, execution.save_minutes) as state:
        history, memory, images = _learn(context, lesson, state)
    lesson.learner.end_task(task)
    if spec.alignment is not None:
        memory = _align(context, lesson)
    work = _work(context, lesson, inputs, images, teacher_spec)
    _write(context, replace(lesson, memory=memory), history, state.key, work, output, losses)


def _prepare(
    context: TaskContext[LearnerSpec], inputs: TaskInputs, teacher_spec: LearnerSpec | None
) -> _Lesson:
    """Open the learner's past and its teacher, and build the learner at the start of the task."""
    spec, task = context.spec, context.task
    width, query = context.query(spec.query, inputs.queries)
    widths, source = {"query": width}, None
    if teacher_spec is not None:
        theirs = query
        if teacher_spec.query != spec.query or inputs.teacher_queries is not None:
            _, theirs = context.query(teacher_spec.query, inputs.teacher_queries)
        source = TeacherSource.open(
            context, teacher_spec, theirs, path=inputs.teacher, targets=inputs.targets
        )
        widths["teacher_query"] = source.query_width
    shape = source.shape if source else None
    learner = build_learner(spec, context.backbones[spec.backbone], widths, shape)
    memory = {}
    if inputs.previous is not None:
        past, metadata = context.checkpoint(inputs.previous, spec, task - 1)
        learner.load_state(past)
        memory = {k.removeprefix(MEMORY): t for k, t in past.items() if k.startswith(MEMORY)}
        restore_trained(learner, memory)
        context.fingerprints["previous"] = metadata["sha256"]
    if source is not None:
        learner.distiller.read_teacher(source.prompts)
    learner.start_task(task, context.stream.sizes[task], *spec.keys)
    aligned = learner.needs_query and spec.alignment is not None
    aligning = {"query": spec.query} if aligned else {}
    if aligning and spec.teacher_query is not None:
        aligning["teacher_query"] = spec.teacher_query
    names = sorted(set(aligning.values())) if inputs.aligning else []
    known = {
        name: context.cached(path, spec.aligning_queries(name))
        for name, path in zip(names, inputs.aligning, strict=True)
    }
    reads = query if learner.needs_query else no_query
    return _Lesson(learner, reads, source, widths, memory, aligning, known)


def _learn(
    context: TaskContext[LearnerSpec], lesson: _Lesson, state: State
) -> tuple[pd.DataFrame, dict[str, Tensor], int]:
    """Run the loop, or solve; return the history, what later tasks need, and how many views."""
    if not context.spec.method.facts.trains:
        solved = solve_task(context, lesson.learner, lesson.teacher, lesson.memory)
        return *solved, len(learnt_from(context.labels, lesson.teacher is not None))
    batches, training = context.batches(), context.spec.training
    history = train_task(
        lesson.learner,
        batches,
        query=lesson.query,
        teacher=lesson.teacher.output if lesson.teacher else None,
        task=context.task,
        classes=context.stream.classes(context.task),
        capture=context.compute.capture,
        state=state,
        epochs=training.epochs,
        lr=training.lr,
        betas=training.betas,
        schedule=training.schedule,
    )
    return history, {}, len(history) * batches.images_per_step


def _work(
    context: TaskContext[LearnerSpec],
    lesson: _Lesson,
    inputs: TaskInputs,
    images: int,
    teacher_spec: LearnerSpec | None,
) -> dict[str, float]:
    """Return what the task took, as its record says it.

    `images` learnt from, views of all epochs; `operations`, see `cdl.models.operations`, of
    this job alone; `forward`, those of the learner's answer to one image; and `answers`, how many
    of its teacher's it read from a cache.
    """
    spec, learner, teacher = context.spec, lesson.learner, lesson.teacher
    forward, backward = of_learner(learner, context.task, lesson.widths)
    if isinstance(learner.head, PrototypeHead):
        seen = context.stream.classes(context.task).stop
        width = learner.backbone.width
        operations = images * forward + solve_operations(images, seen, width, learner.head)
        asked = len(context.pixels) * spec.training.epochs
    else:
        asked, operations = images, images * (forward + backward)
    queries = {name: of_query(backbone) for name, backbone in context.backbones.items()}
    own = learner.needs_query and inputs.queries is None
    operations += images * queries[spec.query] if own else 0.0
    if teacher is not None and teacher.learner is not None and teacher_spec is not None:
        answer, _ = of_learner(teacher.learner, context.task, {"query": teacher.query_width})
        shared = learner.needs_query and teacher_spec.query == spec.query
        if teacher.learner.needs_query and inputs.teacher_queries is None and not shared:
            answer += queries[teacher_spec.query]
        operations += asked * answer
    if spec.alignment is not None:
        computed = set(lesson.aligning.values()) - lesson.known.keys()
        n = len(remembered(context, taught=teacher is not None))
        operations += n * (forward + sum(queries[name] for name in computed))
        sizes = context.stream.sizes[: context.task + 1]
        operations += alignment_operations(learner, sizes, spec.alignment)
    answers = asked if teacher is not None and teacher.learner is None else 0
    return {"images": images, "operations": operations, "forward": forward, "answers": answers}


def _align(context: TaskContext[LearnerSpec], lesson: _Lesson) -> dict[str, Tensor]:
    """Align the heads; return what later tasks need."""
    learner, known = lesson.learner, lesson.known

    def query(name: str) -> TestQuery:
        if name in known:
            return lambda _, positions: known[name].at(0, positions)
        return lambda images, _: context.backbones[name].query(images)

    by_name = {name: query(name) for name in lesson.aligning.values()}
    queries = {part: by_name[name] for part, name in lesson.aligning.items()}
    answers = None
    if lesson.teacher is not None:
        softmax = partial(torch.softmax, dim=1)
        answers = partial(teachers_answers, context, lesson.teacher, lesson.query, softmax)
    how = context.spec.alignment
    assert how is not None, "only what is aligned gets here"
    return align_learner(context, learner, how, lesson.memory, answers, **queries)


def _write(
    context: TaskContext[LearnerSpec],
    lesson: _Lesson,
    history: pd.DataFrame,
    state: str,
    work: dict[str, float],
    output: str,
    losses: str,
) -> None:
    """Write the loss curve and the artifact, which says what it was made from."""
    with artifacts.replacing(losses) as temporary:
        per_epoch(history).to_csv(temporary, index=False)
    shape = lesson.teacher.shape if lesson.teacher else None
    metadata = {
        "task": context.task,
        "learner": context.spec.to_json(),
        "teacher_query": context.spec.teacher_query,
        "inputs": context.fingerprints,
        "widths": lesson.widths,
        "teacher_shape": None if shape is None else {"width": shape.width, "depth": shape.depth},
        "trainable_parameters": sum(p.numel() for p in lesson.learner.learnables()),
        "work": work,
        "device": context.compute.name,
        "state": state,
        "versions": versions(),
    }
    memory = {MEMORY + name: tensor for name, tensor in lesson.memory.items()}
    artifacts.save(output, lesson.learner.state() | memory, metadata, files=[losses])
    log.info("wrote %s", Path(output))
