"""From a specification and artifacts to objects: stream, batches, backbones, learners."""

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy
import timm
import torch
from torch import Tensor, nn

import cdl
from cdl.backbones.frozen import Backbone
from cdl.backbones.shape import BackboneShape
from cdl.data.batches import Batch, Batches
from cdl.data.cached import CachedOutputs
from cdl.data.labels import UNLABELLED, known_labels
from cdl.data.packed import JoinedPixels, Packed, Pixels
from cdl.data.stream import Stream, cut
from cdl.data.views import Views
from cdl.distillers.base import DistillerContext
from cdl.methods.base import PromptContext, PromptMethod
from cdl.models.learner import Learner
from cdl.runtime import artifacts
from cdl.runtime.compute import Compute
from cdl.runtime.jobs import Execution
from cdl.runtime.seeds import generator
from cdl.spec import AnySpec, Distiller, LearnerSpec, Method, Part, TaskSpec, precision_of

_FRESH = 1 << 31  # added to the seed of views that are not the teacher's

Query = Callable[[Batch], Tensor | None]
Spec = TypeVar("Spec", bound=TaskSpec, covariant=True)
_Given = TypeVar("_Given", bound=TaskSpec)


def no_query(batch: Batch) -> None:
    """Return nothing: the query of prompts that read none."""


def versions() -> dict[str, str]:
    """Return the versions that numbers depend on."""
    return {
        "cdl": cdl.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "numpy": numpy.__version__,
    }


def compute_of(spec: AnySpec, execution: Execution) -> Compute:
    """Wait for the device, select and apply it, with the precision of the own backbone."""
    execution.lease()
    precision = precision_of(spec, spec.backbone)
    return Compute.select(execution.device, precision, execution.capture).apply()


def folders_of(inputs: Any) -> dict[str, Any]:
    """Return the packed folders of a rule's input: `data`, and `unlabelled` or None."""
    unlabelled = inputs.get("unlabelled")
    folders = {"data": inputs.data[0], "unlabelled": unlabelled[0] if unlabelled else None}
    return {name: file and str(Path(file).parent) for name, file in folders.items()}


def load_backbones(spec: AnySpec, paths: Mapping[str, str]) -> dict[str, Backbone]:
    """Load backbones by name, on the CPU, in the sizes of a specification."""
    sizes = {**dict.fromkeys(paths, spec.view.size), **(spec.sizes or {})}
    return {n: Backbone.load(path, sizes[n], spec.normalization) for n, path in paths.items()}


def place_backbones(spec: AnySpec, backbones: Mapping[str, Backbone], compute: Compute) -> None:
    """Put backbones on the device, each in the precision that a specification gives it."""
    for name, backbone in backbones.items():
        backbone.place(compute.rounding(precision_of(spec, name)))


def build_stream(spec: TaskSpec, data: Packed) -> Stream:
    """Return the stream of tasks of a specification."""
    return Stream.build(data.classes, spec.stream.tasks, spec.stream.class_order, spec.seed)


@dataclass(frozen=True)
class TaskContext(Generic[Spec]):
    """What the job of one task works with. All of it is read before the device is waited for.

    spec: of the learner, or of what is computed of its views; after the task.
    task: counted from 0.
    train: the packed training split.
    stream: tasks and class order.
    execution: how the job computes.
    backbones: the frozen ViTs that the job loads, by name; on the CPU until `place`.
    fingerprints: of all that the job read: `data` (the task's images), `backbones` by
        name, and more as it is opened.
    models: specification of the learner whose backbones they are, if `spec` is of views alone.
    unlabelled: packed images without labels, if the specification has `unlabelled`.
    """

    spec: Spec
    task: int
    train: Packed
    stream: Stream
    execution: Execution
    backbones: Mapping[str, Backbone]
    fingerprints: dict[str, Any]
    models: LearnerSpec | None = None
    unlabelled: Packed | None = None

    @staticmethod
    def open(
        spec: _Given,
        task: int,
        data: str,
        backbones: Mapping[str, str],
        execution: Execution,
        models: LearnerSpec | None = None,
        unlabelled: str | None = None,
    ) -> "TaskContext[_Given]":
        """Open data and backbones by their paths; raise `CdlError` if one is damaged."""
        train = Packed(data, "train")
        stream = build_stream(spec, train)
        loaded = load_backbones(models or spec, backbones)
        fingerprints = {
            "data": stream.digest(train.about, train.classes, task),
            "backbones": {name: backbone.fingerprint for name, backbone in loaded.items()},
        }
        if execution.images:
            fingerprints["images"] = execution.images
        packed = None
        if unlabelled is not None:
            packed = Packed(unlabelled, "train")
            fingerprints["unlabelled"] = packed.fingerprint
        return TaskContext(
            spec, task, train, stream, execution, loaded, fingerprints, models, packed
        )

    def indices(self, task: int) -> tuple[Tensor, Tensor]:
        """Return the indices of a task's images in `train`, and of those in `unlabelled`."""
        own = self.stream.indices(self.train, task, self.spec.images_per_class)
        if self.unlabelled is None:
            return own, torch.arange(0)
        n, how = len(self.unlabelled), self.spec.unlabelled
        if how is None or how.of is None:
            return own, torch.arange(n)
        return own, cut(n, task, how.of, self.spec.seed)

    @cached_property
    def pixels(self) -> Pixels | JoinedPixels:
        """The task's images, those of `unlabelled` last, verified, on the CPU."""
        own, unlabelled = self.indices(self.task)
        pixels = self.train.pixels(own)
        if self.unlabelled is None:
            return pixels
        return JoinedPixels(pixels, self.unlabelled.pixels(unlabelled))

    @cached_property
    def labels(self) -> Tensor:
        """What the learner may know: the images' positions in the class order, or `UNLABELLED`."""
        own, unlabelled = self.indices(self.task)
        labels = self.stream.labels(self.train)[own]
        known = known_labels(labels, self.spec.labels, self.spec.seed)
        return torch.cat([known, torch.full_like(unlabelled, UNLABELLED)])

    @cached_property
    def compute(self) -> Compute:
        """The device, which the job has from the first use of this to its end."""
        return compute_of(self.models or self.spec, self.execution)

    def place(self, *learners: Learner | None) -> None:
        """Check the task's images, take the device, put backbones and learners there."""
        _ = self.pixels
        place_backbones(self.models or self.spec, self.backbones, self.compute)
        for learner in filter(None, learners):
            learner.to(self.compute.device)

    def batches(self) -> Batches:
        """Return the training batches of the task."""
        spec, training = self.spec, self.spec.training
        assert training is not None, "alignment's queries are of no batches"
        ratio = 1.0 if training.unlabelled_ratio is None else training.unlabelled_ratio
        unlabelled = round(training.batch_size * ratio)
        return Batches(
            pixels=self.pixels.on(self.compute.device),
            labels=self.labels,
            views=Views.of(spec.view),
            seed=spec.seed + (_FRESH if spec.student_views is not None else 0),
            task=self.task,
            batch_size=training.batch_size,
            unlabelled=max(1, unlabelled),
            taught=spec.teacher is not None,
        )

    def checkpoint(
        self, path: str, spec: LearnerSpec, task: int
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Read a learner's artifact made from the same data and backbones; else `CdlError`."""
        state, metadata = artifacts.load(path, task=task, learner=spec.until(task).to_json())
        self._check_same(path, metadata, task)
        return state, metadata

    def cached(self, path: str, spec: Part) -> CachedOutputs:
        """Read a cache made from the same data and backbones, and remember these."""
        cache = CachedOutputs(path, task=self.task, spec=spec.to_json())
        self._check_same(path, cache.metadata, self.task)
        self.fingerprints["backbones"] |= cache.inputs["backbones"]
        return cache

    def query(self, name: str, path: str | None) -> tuple[int, Query]:
        """Return width and source of a backbone's queries: cached, computed, or nothing."""
        if path is not None:
            assert isinstance(self.spec, LearnerSpec), "caches are no learners"
            cache = self.cached(path, self.spec.queries(name))
            return cache.width, cache
        if name in self.backbones:
            backbone = self.backbones[name]
            return backbone.width, lambda batch: backbone.query(batch.images)
        return 0, no_query

    def _check_same(self, path: str, metadata: Mapping[str, Any], task: int) -> None:
        theirs = metadata["inputs"]
        shared = {
            name: fingerprint
            for name, fingerprint in self.fingerprints["backbones"].items()
            if name in theirs["backbones"]
        }
        data = self.stream.digest(self.train.about, self.train.classes, task)
        expected: dict[str, Any] = {"data": data, "backbones": shared}
        if "unlabelled" in theirs:  # a teacher may have seen none
            expected["unlabelled"] = self.fingerprints.get("unlabelled")
        artifacts.check_provenance(path, theirs, expected)


def build_learner(
    spec: LearnerSpec,
    backbone: Backbone,
    widths: Mapping[str, int],
    teacher: BackboneShape | None,
) -> Learner:
    """Build a learner before its first task: what grows with the tasks is empty.

    Args:
        spec: specification of the learner.
        backbone: its frozen ViT.
        widths: width of its `query` (0 if nothing reads it) and, with a teacher, of the
            `teacher_query`.
        teacher: shape of the teacher's backbone.
    """
    return build(
        backbone=backbone,
        query_width=widths["query"],
        method=spec.method,
        distiller=spec.distiller,
        n_tasks=spec.n_tasks,
        keys=spec.keys,
        auxiliary_weight=spec.auxiliary_weight,
        teacher=teacher,
        teacher_query_width=widths.get("teacher_query"),
    ).to(backbone.mean.device)


def build(
    *,
    backbone: Backbone,
    query_width: int,
    method: Method,
    distiller: Distiller,
    n_tasks: int | None,
    keys: tuple[str | int, ...],
    auxiliary_weight: float = 1.0,
    teacher: BackboneShape | None = None,
    teacher_query_width: int | None = None,
    n_classes: int = 0,
) -> Learner:
    """Build a learner from method and distiller.

    Args:
        backbone: its frozen ViT.
        query_width: width of the query that its prompts read.
        method: of its prompts.
        distiller: its distiller.
        n_tasks: tasks of the stream, where something of all tasks is shared by them; else None.
        keys: fix the randomness of the start.
        auxiliary_weight: see `Learner`.
        teacher: shape of the teacher's backbone, None without a teacher.
        teacher_query_width: width of the query that the teacher's prompts read.
        n_classes: of the heads at first.
    """
    kind = method.facts.load()

    def prompts(shape: BackboneShape, width: int | None, part: str) -> PromptMethod:
        source = generator(*keys, part)
        context = PromptContext(shape.width, shape.depth, width or 0, n_tasks, source)
        return kind(context, **method.options)

    student = BackboneShape(backbone.width, backbone.depth)
    own = prompts(student, query_width, "prompts")

    def head(source: torch.Generator) -> nn.Module:
        return own.make_head(backbone.width, n_classes, source)

    mapped = None
    if distiller.facts.maps_prompts and teacher is not None:
        mapped = prompts(teacher, teacher_query_width, "unused")
    source = generator(*keys, "distiller")
    context = DistillerContext(student, teacher, mapped, n_tasks, head, source)
    return Learner(
        backbone,
        own,
        head(generator(*keys, "head")),
        distiller.facts.load()(context, **distiller.options),
        needs_query=method.facts.needs_query,
        compared_blocks=distiller.facts.blocks(student.depth),
        auxiliary_weight=auxiliary_weight,
    )
