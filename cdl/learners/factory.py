"""From a specification and artifacts to objects: stream, batches, backbones, learners."""

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

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
from cdl.data.order import until
from cdl.data.packed import JoinedPixels, Packed, Pixels
from cdl.data.stream import Stream, cut
from cdl.data.views import Views
from cdl.distillers import DISTILLERS
from cdl.distillers.base import DistillerContext
from cdl.learners.learner import Learner
from cdl.learners.specs import precision_of, queries_spec
from cdl.methods import PROMPTS
from cdl.methods.base import PromptContext, PromptMethod
from cdl.runtime import artifacts
from cdl.runtime.compute import Compute
from cdl.runtime.jobs import Execution
from cdl.runtime.seeds import generator

_FRESH = 1 << 31  # added to the seed of views that are not the teacher's

Query = Callable[[Batch], Tensor | None]


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


def compute_of(spec: Mapping[str, Any], execution: Execution) -> Compute:
    """Wait for the device, select and apply it, with the precision of the own backbone."""
    execution.lease()
    precision = precision_of(spec, spec["backbone"])
    return Compute.select(execution.device, precision, execution.capture).apply()


def folders_of(inputs: Any) -> dict[str, Any]:
    """Return the packed folders that a rule's input names: `data`, `unlabelled` or None."""
    further = inputs.get("unlabelled")
    folders = {"data": inputs.data[0], "unlabelled": further[0] if further else None}
    return {name: file and str(Path(file).parent) for name, file in folders.items()}


def load_backbones(spec: Mapping[str, Any], paths: Mapping[str, str]) -> dict[str, Backbone]:
    """Load backbones by name, on the CPU, in the sizes of a specification."""
    sizes = dict.fromkeys(paths, spec["view"]["size"]) | spec.get("sizes", {})
    normalization = spec["normalization"]
    return {n: Backbone.load(path, sizes[n], normalization) for n, path in paths.items()}


def place_backbones(
    spec: Mapping[str, Any], backbones: Mapping[str, Backbone], compute: Compute
) -> None:
    """Put backbones on the device, each in the precision that a specification gives it."""
    for name, backbone in backbones.items():
        backbone.place(compute.rounding(precision_of(spec, name)))


def build_stream(spec: Mapping[str, Any], data: Packed) -> Stream:
    """Return the stream of tasks of a specification."""
    return Stream.build(data.classes, **spec["stream"], seed=spec["seed"])


@dataclass(frozen=True)
class TaskContext:
    """What the job of one task works with. All of it is read before the device is waited for.

    spec: of the views (a learner's specification holds it).
    task: counted from 0.
    train: the packed training split.
    stream: tasks and class order.
    execution: how the job computes.
    backbones: the frozen ViTs that the job loads, by name; on the CPU until `place`.
    fingerprints: of all that the job read: `data` (the task's images), `backbones` by
        name, and more as it is opened.
    models: specification of the learner whose backbones they are, if `spec` is of views alone.
    further: packed images without labels, where the specification names `unlabelled`.
    """

    spec: Mapping[str, Any]
    task: int
    train: Packed
    stream: Stream
    execution: Execution
    backbones: Mapping[str, Backbone]
    fingerprints: dict[str, Any]
    models: Mapping[str, Any] | None = None
    further: Packed | None = None

    @classmethod
    def open(
        cls,
        spec: Mapping[str, Any],
        task: int,
        data: str,
        backbones: Mapping[str, str],
        execution: Execution,
        models: Mapping[str, Any] | None = None,
        unlabelled: str | None = None,
    ) -> "TaskContext":
        """Open data and backbones by their paths; raise `CdlError` if one is damaged."""
        spec, models = until(spec, task), models and until(models, task)
        train = Packed(data, "train")
        stream = build_stream(spec, train)
        loaded = load_backbones(models or spec, backbones)
        fingerprints = {
            "data": stream.digest(train.about, train.classes, task),
            "backbones": {name: backbone.fingerprint for name, backbone in loaded.items()},
        }
        if execution.images:
            fingerprints["images"] = execution.images
        further = None
        if unlabelled is not None:
            further = Packed(unlabelled, "train")
            fingerprints["unlabelled"] = further.fingerprint
        return cls(spec, task, train, stream, execution, loaded, fingerprints, models, further)

    def indices(self, task: int) -> tuple[Tensor, Tensor]:
        """Return the indices of a task's images in `train`, and of those in `further`."""
        own = self.stream.indices(self.train, task, self.spec["images_per_class"])
        if self.further is None:
            return own, torch.arange(0)
        n, cut_of = len(self.further), self.spec["unlabelled"].get("of")
        return own, cut(n, task, cut_of, self.spec["seed"]) if cut_of else torch.arange(n)

    @cached_property
    def pixels(self) -> Pixels | JoinedPixels:
        """The task's images, those of `further` last, checked, on the CPU."""
        own, others = self.indices(self.task)
        pixels = self.train.pixels(own)
        if self.further is None:
            return pixels
        return JoinedPixels(pixels, self.further.pixels(others))

    @cached_property
    def labels(self) -> Tensor:
        """What the learner may know: the images' positions in the class order, or `UNLABELLED`."""
        own, others = self.indices(self.task)
        labels = self.stream.labels(self.train)[own]
        known = known_labels(labels, self.spec.get("labels"), self.spec["seed"])
        return torch.cat([known, torch.full_like(others, UNLABELLED)])

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
        training = self.spec["training"]
        beside = round(training["batch_size"] * training.get("unlabelled_ratio", 1.0))
        return Batches(
            pixels=self.pixels.on(self.compute.device),
            labels=self.labels,
            views=Views(**self.spec["view"]),
            seed=self.spec["seed"] + (_FRESH if "student_views" in self.spec else 0),
            task=self.task,
            batch_size=training["batch_size"],
            beside=max(1, beside),
            taught=self.spec.get("teacher") is not None,
        )

    def checkpoint(
        self, path: str, spec: Mapping[str, Any], task: int
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Read a learner's artifact made from the same data and backbones; else `CdlError`."""
        state, metadata = artifacts.load(path, task=task, learner=until(spec, task))
        self._check_same(path, metadata, task)
        return state, metadata

    def cached(self, path: str, spec: Mapping[str, Any]) -> CachedOutputs:
        """Read a cache made from the same data and backbones, and remember these."""
        cache = CachedOutputs(path, task=self.task, spec=spec)
        self._check_same(path, cache.metadata, self.task)
        self.fingerprints["backbones"] |= cache.inputs["backbones"]
        return cache

    def query(self, name: str, path: str | None) -> tuple[int, Query]:
        """Return width and source of a backbone's queries: cached, computed, or nothing."""
        if path is not None:
            cache = self.cached(path, queries_spec(self.spec, name))
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
    spec: Mapping[str, Any],
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
        method=spec["method"],
        distiller=spec["distiller"],
        n_tasks=spec.get("n_tasks"),
        keys=keys(spec),
        auxiliary_weight=spec["auxiliary_weight"],
        teacher=teacher,
        teacher_query_width=widths.get("teacher_query"),
    ).to(backbone.mean.device)


def keys(spec: Mapping[str, Any]) -> tuple[str | int, ...]:
    """Return what fixes a learner's start: equal for all students of a pair, not for teachers."""
    return spec["seed"], spec["role"], spec["backbone"]


def build(
    *,
    backbone: Backbone,
    query_width: int,
    method: Mapping[str, Any],
    distiller: Mapping[str, Any],
    n_tasks: int | None,
    keys: tuple[str | int, ...],
    auxiliary_weight: float = 1.0,
    teacher: BackboneShape | None = None,
    teacher_query_width: int | None = None,
    n_classes: int = 0,
) -> Learner:
    """Build a learner from configuration blocks.

    Args:
        backbone: its frozen ViT.
        query_width: width of the query that its prompts read.
        method: `name` of a prompt method and its arguments.
        distiller: `name` of a distiller and its arguments.
        n_tasks: tasks of the stream, where something of all tasks is shared by them; else None.
        keys: fix the randomness of the start.
        auxiliary_weight: see `Learner`.
        teacher: shape of the teacher's backbone, None without a teacher.
        teacher_query_width: width of the query that the teacher's prompts read.
        n_classes: of the heads at first.
    """
    prompt_options, distiller_options = dict(method), dict(distiller)
    prompt_facts = PROMPTS[prompt_options.pop("name")]
    distiller_facts = DISTILLERS[distiller_options.pop("name")]
    kind = prompt_facts.load()

    def prompts(shape: BackboneShape, width: int | None, part: str) -> PromptMethod:
        source = generator(*keys, part)
        context = PromptContext(shape.width, shape.depth, width or 0, n_tasks, source)
        return kind(context, **prompt_options)

    student = BackboneShape(backbone.width, backbone.depth)
    own = prompts(student, query_width, "prompts")

    def head(source: torch.Generator) -> nn.Module:
        return own.make_head(backbone.width, n_classes, source)

    mapped = None
    if distiller_facts.maps_prompts and teacher is not None:
        mapped = prompts(teacher, teacher_query_width, "unused")
    source = generator(*keys, "distiller")
    context = DistillerContext(student, teacher, mapped, n_tasks, head, source)
    return Learner(
        backbone,
        own,
        head(generator(*keys, "head")),
        distiller_facts.load()(context, **distiller_options),
        needs_query=prompt_facts.needs_query,
        compared_blocks=distiller_facts.blocks(student.depth),
        auxiliary_weight=auxiliary_weight,
    )
