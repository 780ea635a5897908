"""Align the heads of one learner after one task, the job of the rule `align`."""

import logging
import os
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Required, TypedDict, Unpack

import torch
from torch import Tensor

from cdl.data.labels import UNLABELLED
from cdl.models.build import rebuild_learner, versions
from cdl.models.learner import MEMORY, Learner, memory_of, name_of
from cdl.models.operations import of_learner, of_query
from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError
from cdl.runtime.jobs import DEFAULT, Execution
from cdl.runtime.seeds import generator
from cdl.spec import Alignment, ClassMeans, Labelling, LearnerSpec, SampledAlignment
from cdl.training.alignment import (
    align,
    alignment_operations,
    compensated,
    drawing,
    statistics_of,
)
from cdl.training.answers import TeacherAnswers
from cdl.training.context import TaskContext
from cdl.training.features import Features, query_of, read_features
from cdl.training.labelling import assigned, images_counted, labels_of

log = logging.getLogger(__name__)
TOKENS = {0: "feature", -1: "kd_token"}  # names of the tokens that heads read, by position


class AligningFiles(TypedDict, total=False):
    """Files that the alignment after a task reads, by their names in the rule.

    data: packed folder.
    backbones: artifacts of the frozen backbones to load, by name.
    trained: the learner's artifact after the training on the task.
    queries: caches of queries at the test view, by name of the backbone; the others are computed.
    previous: its aligned artifact of the previous task; None for task 0.
    before: its artifact after the training on the previous task, to measure drift.
    teacher: the teacher's artifact of the same task, unless `targets` is sufficient.
    targets: cache of the teacher's logits at the training views.
    unlabelled: packed folder of unlabelled images; None without them.
    """

    data: Required[str]
    backbones: Required[Mapping[str, str]]
    trained: Required[str]
    queries: Required[Mapping[str, str]]
    previous: str | None
    before: str | None
    teacher: str | None
    targets: str | None
    unlabelled: str | None


@dataclass(frozen=True)
class _Job:
    """A learner whose heads are to be aligned.

    context: context of the task.
    record: metadata of the artifact of the trained learner.
    learner: the trained learner.
    memory: statistics of earlier tasks.
    before: the learner before the task, to measure drift; None otherwise.
    queries: sources (`TestQuery`) of `query` and `teacher_query`, see `read_features`.
    computed: backbones of the queries that are computed, not read from a cache.
    teacher: the teacher that labels images; None without one.
    """

    context: TaskContext[LearnerSpec]
    record: dict[str, Any]
    learner: Learner
    memory: dict[str, Tensor]
    before: Learner | None
    queries: dict[str, Any]
    computed: Set[str]
    teacher: TeacherAnswers | None

    @property
    def how(self) -> Alignment:
        """Options of the alignment."""
        assert self.context.spec.alignment is not None, "only learners with an alignment"
        return self.context.spec.alignment

    @property
    def labelling(self) -> Labelling:
        """How images without a label get a class."""
        assert self.context.spec.labelling is not None, "only learners with an alignment"
        return self.context.spec.labelling

    @property
    def images(self) -> Tensor:
        """Positions `[n]` of the images that have a label or get one."""
        return images_counted(self.context, self.labelling)


def align_task(
    spec: LearnerSpec,
    task: int,
    output: str,
    *,
    trained_spec: LearnerSpec,
    teacher_spec: LearnerSpec | None = None,
    execution: Execution = DEFAULT,
    **files: Unpack[AligningFiles],
) -> None:
    """Compute the class statistics of a task, align the heads, and write the artifact.

    The artifact has the whole state of the learner, so that prediction needs no other file of it.

    Args:
        spec: specification of the learner, with its alignment, stored in the artifact.
        task: counted from 0.
        output: artifact to write (.safetensors, and .json with the same name).
        trained_spec: specification of the learner without its alignment.
        teacher_spec: specification of the teacher that labels images; None without one.
        execution: how to compute.
        **files: files to read.

    Raises:
        CdlError: an input is damaged or belongs to another configuration, or a class of the task
            has too few images. No file is written in this case.
        TypeError: a file has another name.
    """
    spec, trained_spec = spec.until(task), trained_spec.until(task)
    context = TaskContext.of_job(spec, task, files, AligningFiles, execution)
    job = _open(context, files, trained_spec, teacher_spec and teacher_spec.until(task))
    context.place(job.learner, job.before, job.teacher.learner if job.teacher else None)
    found, labels = _statistics(job)
    state = _align_heads(job, found) | {MEMORY + name: tensor for name, tensor in found.items()}
    kept = ("widths", "teacher_shape", "trainable_parameters", "state")
    metadata = {name: job.record[name] for name in kept} | {
        "task": task,
        "learner": spec.to_json(),
        "teacher_query": spec.teacher_query,
        "inputs": context.fingerprints,
        "trained": os.path.relpath(files["trained"], Path(output).parent),
        "work": _work(job),
        "seen": _seen(job, labels),
        "counts": _counts(context, labels),
        "device": context.compute.name,
        "versions": versions(spec),
    }
    artifacts.save(output, state, metadata)
    log.info("wrote %s", Path(output))


def _open(
    context: TaskContext[LearnerSpec],
    files: AligningFiles,
    trained_spec: LearnerSpec,
    teacher_spec: LearnerSpec | None,
) -> _Job:
    """Read all inputs; the specifications are those after the task."""
    spec, task, paths = context.spec, context.task, files["queries"]
    cached = {n: context.cached(path, spec.queries(n, "held_out")) for n, path in paths.items()}
    learner, record = _learner(context, trained_spec, files["trained"], task, "trained")
    context.fingerprints["backbones"] |= record["inputs"]["backbones"]
    memory, before = {}, None
    if (previous := files.get("previous")) is not None:
        earlier, metadata = context.checkpoint(previous, spec, task - 1)
        memory = memory_of(earlier)
        context.fingerprints["previous"] = metadata["sha256"]
    if (path := files.get("before")) is not None:
        before, _ = _learner(context, trained_spec, path, task - 1, "before")
    names = {"query": spec.query, "teacher_query": spec.teacher_query}
    of_part = {part: name for part, name in names.items() if name and learner.needs_query}
    sources = {name: query_of(context, name, cached.get(name)) for name in of_part.values()}
    queries = {part: sources[name] for part, name in of_part.items()}
    teacher, labeller = None, teacher_spec or (spec.answers if spec.labelled_by_teacher else None)
    if labeller is not None:
        path, targets = files.get("teacher"), files.get("targets")
        teacher = TeacherAnswers.open(context, labeller, path=path, targets=targets)
    computed = sources.keys() - paths.keys()
    return _Job(context, record, learner, memory, before, queries, computed, teacher)


def _learner(
    context: TaskContext[LearnerSpec], spec: LearnerSpec, path: str, task: int, name: str
) -> tuple[Learner, dict[str, Any]]:
    """Build a learner from its artifact after a task; return it and the artifact's metadata.

    `name` is the entry of the artifact's hash in the fingerprints.
    """
    state, record = context.checkpoint(path, spec, task)
    context.fingerprints[name] = record["sha256"]
    learner = rebuild_learner(spec, context.backbones[spec.backbone], record)
    learner.load_state(state)
    return learner, record


def _statistics(job: _Job) -> tuple[dict[str, Tensor], Tensor]:
    """Compute the task's statistics.

    Returns:
        Mean and spread of all classes seen, for each token of a head; and the classes `[n]` of
        `labels_of`. Images that have got a class of an earlier task are left out: the statistics
        of earlier classes do not change.

    Raises:
        CdlError: a class of the task has too few training images.
    """
    context, learner, how = job.context, job.learner, job.how
    heads, sizes = learner.heads(), context.stream.sizes[: context.task + 1]
    tokens = sorted({token for _, token in heads.values()})
    images = job.images
    features = read_features(context, learner, images, tokens, **job.queries)
    moved = _moved(job, features, images, tokens)
    labels = _labels(job, features, images, job.memory | moved)
    new_classes = labels >= context.stream.classes(context.task).start
    found: dict[str, Tensor] = {}
    for token, rows in features.tokens.items():
        own_rows, own_labels = rows[new_classes], labels[new_classes]
        for part, new in statistics_of(own_rows, own_labels, how.statistic).items():
            key = f"{TOKENS[token]}.{part}"
            earlier = moved.get(key, job.memory.get(key))
            found[key] = new if earlier is None else torch.cat([earlier.to(new.device), new])
    if any(len(rows) != sum(sizes) for rows in found.values()):
        raise CdlError(
            f"alignment: a class of task {context.task + 1} has no training example; expected at "
            "least one per class"
        )
    return found, labels.cpu()


def _align_heads(job: _Job, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the learner's tensors with aligned heads, or with class means in place of them.

    Args:
        job: learner, which is trained in place, and options.
        found: statistics of all classes seen, see `_statistics`.
    """
    context, learner, how = job.context, job.learner, job.how
    if isinstance(how, ClassMeans):
        return _class_means(job, found)
    assert isinstance(how, SampledAlignment), "one or the other"
    sizes = context.stream.sizes[: context.task + 1]
    for name, (head, token) in learner.heads().items() if context.task else ():
        own = {part: found[f"{TOKENS[token]}.{part}"] for part in ("mean", "spread")}
        shape = (sum(sizes), how.samples, own["mean"].shape[1])
        draws = drawing((*context.spec.keys, name, context.task), shape)
        losses = align(head, own, sizes, how, draws).mean(1)
        log.info("alignment of %s: loss %.4f to %.4f", name, losses[0], losses[-1])
    return learner.state()


def _class_means(job: _Job, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the learner's tensors with the means of all classes seen as the rows of all heads.

    Raises:
        CdlError: a head is not made by `PromptMethod.make_head` or does not read a single token.
    """
    context, learner, state = job.context, job.learner, job.learner.state()
    for head, token in learner.heads().values():
        name = name_of(head, learner)
        state = {k: v for k, v in state.items() if not k.startswith(f"{name}.")}
        state[f"{name}.weight"] = found[f"{TOKENS[token]}.mean"]
    spec = context.spec
    try:
        made = rebuild_learner(spec, context.backbones[spec.backbone], job.record)
        made.load_state(state)
    except RuntimeError as error:
        raise CdlError(
            f"alignment.preset: class_means cannot replace the heads of methods.{spec.method.name} "
            f"with distillers.{spec.distiller.name} ({str(error).splitlines()[-1].strip()})"
        ) from error
    return made.state()


def _labels(job: _Job, features: Features, images: Tensor, known: Mapping[str, Tensor]) -> Tensor:
    """Return the classes of the images, see `labels_of`, given the statistics of earlier tasks."""

    @torch.no_grad()
    def own() -> Tensor:
        tokens = torch.stack([features.tokens[t] for t in sorted(features.tokens, reverse=True)], 1)
        seen = job.context.stream.classes(job.context.task).stop
        return job.learner.predict(job.learner.read(tokens), seen)

    earlier = known.get(f"{TOKENS[0]}.mean")
    how, teacher = job.labelling, job.teacher
    return labels_of(job.context, how, features, images, own=own, earlier=earlier, teacher=teacher)


def _moved(
    job: _Job, features: Features, images: Tensor, tokens: Sequence[int]
) -> dict[str, Tensor]:
    """Return the means of earlier classes after compensation of drift, by their names."""
    if job.before is None:
        return {}
    task, names = job.context.task - 1, TOKENS
    old = read_features(job.context, job.before, images, tokens, task, **job.queries)
    found = {}
    for token in tokens:
        keys = {part: f"{names[token]}.{part}" for part in ("mean", "spread")}
        rows = old.tokens[token], features.tokens[token]
        if job.how.drift == "ssiat_as_released":
            rows = rows[0], rows[1][_shuffled(job, len(images)).to(rows[1].device)]
        own = {part: job.memory[key].to(rows[0].device) for part, key in keys.items()}
        found[keys["mean"]] = compensated(own, *rows, job.how.statistic, job.how.drift)
    return found


def _shuffled(job: _Job, n: int) -> Tensor:
    """Return an order of `n` images.

    The released code of SSIAT reads the features before and after a task from a loader that
    shuffles anew, so that a pair consists of two different images.
    """
    context = job.context
    source = generator(*context.spec.keys, "unpaired", context.task)
    return torch.randperm(n, generator=source)


def _work(job: _Job) -> dict[str, float]:
    """Return the amount of work, see `cdl.training.task`.

    `answers` counts cached teacher outputs unless the training has read and counted them.
    """
    context, images = job.context, job.images
    forward, _ = of_learner(job.learner, context.task, job.record["widths"])
    per_image = forward + sum(of_query(context.backbones[name]) for name in job.computed)
    operations = len(images) * per_image * (1 if job.before is None else 2)
    if isinstance(job.how, SampledAlignment):
        sizes = context.stream.sizes[: context.task + 1]
        operations += alignment_operations(job.learner, sizes, job.how)
    answers = 0
    if job.teacher is not None and (context.labels[images] == UNLABELLED).any():
        computed_by_teacher, answers = job.teacher.work()
        operations += computed_by_teacher
        counted = job.how.answers != "test" and job.record.get("work", {}).get("answers")
        answers = 0 if counted else answers
    return {"images": 0, "operations": operations, "forward": forward, "answers": answers}


def _counts(context: TaskContext[LearnerSpec], labels: Tensor) -> list[int]:
    """Return the number of images of each class of the task."""
    classes = context.stream.classes(context.task)
    counts: list[int] = labels.bincount(minlength=classes.stop)[classes].tolist()
    return counts


def _seen(job: _Job, labels: Tensor) -> dict[str, float]:
    """Return what training has seen, with the unlabelled images of the alignment, see `assigned`.

    `labels` are those of `labels_of`.
    """
    trained: dict[str, float] = job.record["seen"]
    given = assigned(job.context, job.images, labels)
    unlabelled = max(trained["unlabelled"], given["pseudo_labels"])
    right = job.teacher.right if job.teacher else {}
    return {**trained, "unlabelled": unlabelled, **given, **right}
