"""One task of one learner, from artifacts to an artifact: what the rules train and distil run."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from cdl import artifacts
from cdl.assembly import (
    build_batches,
    build_learner,
    build_stream,
    check_inputs,
    keys,
    load_backbones,
    select_compute,
    versions,
)
from cdl.backbones import Backbone
from cdl.compute import Compute
from cdl.data.batches import Batch
from cdl.data.packed import Packed
from cdl.data.stream import Stream
from cdl.distillers import DISTILLERS
from cdl.distillers.base import Shape, Signal
from cdl.model import Teacher
from cdl.specs import queries_spec, targets_spec
from cdl.state import State
from cdl.targets import Cache
from cdl.training import per_epoch, train_task

log = logging.getLogger(__name__)


def learn_task(
    *,
    spec: dict[str, Any],
    task: int,
    data: str,
    backbones: Mapping[str, str],
    output: str,
    losses: str,
    previous: str | None = None,
    queries: str | None = None,
    teacher: str | None = None,
    teacher_spec: dict[str, Any] | None = None,
    teacher_queries: str | None = None,
    targets: str | None = None,
    device: str = "auto",
    capture: bool = False,
    states: str | None = None,
    save_minutes: float = 1.0,
) -> None:
    """Learn one task and write its artifact and loss curve.

    What frozen models say of a view is read from a cache where one is given, else computed.

    Args:
        spec: specification of the learner, stored in the artifact.
        task: counted from 0.
        data: packed folder.
        backbones: paths of all backbone artifacts needed, by name.
        output: artifact to write (.safetensors; .json beside it).
        losses: CSV to write, see `cdl.training.per_epoch`.
        previous: the learner's artifact of the task before; None for task 0.
        queries: cache of the learner's queries.
        teacher: the teacher's artifact of the same task; None without a teacher, or where its
            targets say all that is needed.
        teacher_spec: its specification; None without a teacher.
        teacher_queries: cache of the teacher's queries if they are not the learner's.
        targets: cache of the teacher's logits; with it the teacher's ViT is not needed.
        device: see `cdl.compute.Compute.select`.
        capture: replay the training step as a CUDA graph.
        states: folder for unfinished work, see `cdl.state`; None keeps none. The state of a
            finished task stays until its run is evaluated.
        save_minutes: between two saves of it.

    Raises:
        CdlError: an input is damaged or belongs to another configuration, or a loss is not
            finite; then nothing is written.
    """
    compute = select_compute(spec, device, capture)
    train = Packed(data, "train")
    stream = build_stream(spec, train)
    desk = _Desk(spec, task, stream, compute, load_backbones(spec, backbones, compute), train)
    width, query = desk.query(spec["query"], queries)
    widths, lesson = {"query": width}, None
    if teacher_spec is not None:
        if teacher_spec["query"] == spec["query"]:
            foreign = query
        else:
            _, foreign = desk.query(teacher_spec["query"], teacher_queries)
        lesson = desk.lesson(teacher_spec, foreign, teacher, targets)
        widths["teacher_query"] = lesson.query_width
    shape = lesson.shape if lesson else None
    learner = build_learner(spec, stream, desk.backbones[spec["backbone"]], widths, shape)
    if previous is not None:
        state, metadata = artifacts.load(previous, task=task - 1, learner=spec)
        check_inputs(previous, metadata, desk.inputs)
        learner.load_state(state)
        desk.inputs["previous"] = metadata["sha256"]
    if lesson is not None and learner.distiller.maps_prompts:
        learner.distiller.read_teacher(lesson.prompts)
    learner.start_task(task, *keys(spec))
    training = {k: v for k, v in spec["training"].items() if k != "batch_size"}
    job = {"task": task, "spec": spec, "inputs": desk.inputs, "versions": versions()}
    with State(states, job, save_minutes) as state:
        history = train_task(
            learner,
            build_batches(spec, task, train, stream, compute),
            query=query if learner.prompts.needs_query else _nothing,
            teacher=lesson.signal if lesson else None,
            task=task,
            classes=stream.classes(task),
            capture=compute.capture,
            state=state,
            **training,
        )
    learner.end_task(task)
    with artifacts.replacing(losses) as temporary:
        per_epoch(history).to_csv(temporary, index=False)
    artifacts.save(
        output,
        learner.state(),
        {
            "task": task,
            "learner": spec,
            "inputs": desk.inputs,
            "widths": widths,
            "teacher_shape": None if shape is None else vars(shape),
            "trainable_parameters": sum(p.numel() for p in learner.learnables()),
            "device": compute.name,
            "state": state.key,
            "versions": versions(),
        },
    )
    log.info("wrote %s", Path(output))


Query = Callable[[Batch], Tensor | None]


def _nothing(batch: Batch) -> None:
    return None


@dataclass(frozen=True)
class _Lesson:
    """What a student's job knows of its teacher: shape, query width, prompts, and its signal."""

    shape: Shape
    query_width: int
    prompts: dict[str, Tensor]
    signal: Callable[[Batch, Tensor | None], Signal]


class _Desk:
    """What one job works with, and the fingerprints of all that it read."""

    def __init__(
        self,
        spec: Mapping[str, Any],
        task: int,
        stream: Stream,
        compute: Compute,
        backbones: dict[str, Backbone],
        train: Packed,
    ) -> None:
        self.spec, self.task, self.stream, self.compute = spec, task, stream, compute
        self.backbones = backbones
        self.inputs: dict[str, Any] = {
            "data": train.fingerprint,
            "backbones": {name: b.fingerprint for name, b in backbones.items()},
        }

    def query(self, name: str, path: str | None) -> tuple[int, Query]:
        """Return width and source of a backbone's queries: cached, computed, or nothing."""
        if path is not None:
            cache = self._cache(path, queries_spec(self.spec, name))
            return cache.width, cache
        if name in self.backbones:
            backbone = self.backbones[name]
            return backbone.width, lambda batch: backbone.query(batch.images)
        return 0, _nothing

    def lesson(
        self, spec: Mapping[str, Any], query: Query, path: str | None, targets: str | None
    ) -> _Lesson:
        """Open what is given of a teacher: its artifact, the cache of its logits, or both."""
        kind = DISTILLERS[self.spec["distiller"]["name"]]
        state: dict[str, Tensor] = {}
        if path is not None:
            state, metadata = artifacts.load(path, task=self.task, learner=spec)
            check_inputs(path, metadata, self.inputs)
            self.inputs["teacher"] = metadata["sha256"]
        prompts = {
            name.removeprefix("prompts."): tensor
            for name, tensor in state.items()
            if name.startswith("prompts.")
        }
        if targets is not None:
            cache = self._cache(targets, targets_spec(self.spec, spec))
            sha256 = cache.inputs["teacher"]
            artifacts.check(targets, cache.inputs, {"teacher": self.inputs.get("teacher", sha256)})
            self.inputs["teacher"] = sha256
            return _Lesson(
                Shape(**cache.metadata["teacher_shape"]),
                cache.metadata["widths"]["query"],
                prompts,
                lambda batch, _: Signal(cache(batch), query(batch) if kind.maps_prompts else None),
            )
        backbone, width = self.backbones[spec["backbone"]], metadata["widths"]["query"]
        learner = build_learner(spec, self.stream, backbone, {"query": width}, None)
        learner.load_state(state)
        if self.spec.get("apt_teacher") == "previous":
            learner.prompts.undo_merge()
        teacher, classes = Teacher(learner), self.stream.classes(self.task)
        depth = self.backbones[self.spec["backbone"]].depth
        blocks = kind.blocks(depth)
        same, reads = spec["query"] == self.spec["query"], learner.prompts.needs_query

        def signal(batch: Batch, own: Tensor | None) -> Signal:
            theirs = own if same else query(batch)
            return teacher(batch.images, theirs if reads else None, self.task, classes, blocks)

        return _Lesson(Shape(backbone.width, backbone.depth), width, prompts, signal)

    def _cache(self, path: str, expected: Mapping[str, Any]) -> Cache:
        cache = Cache(path, self.compute.device, task=self.task, spec=expected)
        check_inputs(path, cache.metadata, self.inputs)
        self.inputs["backbones"] |= cache.inputs["backbones"]
        return cache
