"""The context of a job on one task: data, stream, backbones, caches, device."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from cdl.backbones.frozen import Backbone
from cdl.data.batches import Batch, Batches
from cdl.data.cached import CachedOutputs
from cdl.data.labels import UNLABELLED, known_labels
from cdl.data.modalities import views_of
from cdl.data.packed import JoinedPixels, Packed, Pixels
from cdl.data.stream import Stream, cut
from cdl.models.build import build_stream, compute_of, load_backbones, place_backbones
from cdl.models.learner import Learner
from cdl.runtime import artifacts
from cdl.runtime.compute import Compute
from cdl.runtime.jobs import Execution
from cdl.spec import AnySpec, CacheSpec, LearnerSpec, images_of

_FRESH = 1 << 31  # offset of the seed of views that differ from the teacher's

Query = Callable[[Batch], Tensor | None]
Spec = TypeVar("Spec", bound=AnySpec, covariant=True)
_Given = TypeVar("_Given", bound=AnySpec)


def no_query(batch: Batch) -> None:
    """Return None, for methods without a query."""


@dataclass(frozen=True)
class TaskContext(Generic[Spec]):
    """Inputs of the job of one task, all read before the job waits for a device.

    spec: specification after the task, of a learner or of a cache over its views.
    task: counted from 0.
    train: the packed training split.
    stream: tasks and class order.
    execution: how the job computes.
    backbones: the frozen backbones that the job loads, by name; on the CPU until `place`.
    fingerprints: of everything that the job has read: `data` (the task's images), `backbones` by
        name, and an entry for each file that is opened later.
    models: specification of the learner that owns the backbones, if `spec` is of views alone.
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

    @staticmethod
    def of_job(
        spec: _Given, task: int, files: Mapping[str, Any], known: type, execution: Execution
    ) -> "TaskContext[_Given]":
        """Open data and backbones among the files of a job that learns.

        Raises:
            CdlError: see `open`.
            TypeError: a file has no name in `known`, the `TypedDict` of the job's files.
        """
        names = list(known.__annotations__)
        if unknown := sorted(files.keys() - {*names}):
            raise TypeError(f"unknown file {unknown[0]!r}; expected one of {', '.join(names)}")
        data, unlabelled = files["data"], files.get("unlabelled")
        return TaskContext.open(
            spec, task, data, files["backbones"], execution, unlabelled=unlabelled
        )

    def indices(self, task: int) -> tuple[Tensor, Tensor]:
        """Return the indices of a task's images in `train`, and of those in `unlabelled`."""
        own = self.stream.indices(self.train, task, images_of(self.spec, task))
        if self.unlabelled is None:
            return own, torch.arange(0)
        n, split = len(self.unlabelled), self.spec.unlabelled
        if split is None or split.of is None:
            return own, torch.arange(n)
        assert self.spec.seed is not None, "only specifications of test images have no seed"
        return own, cut(n, task, split.of, self.spec.seed)

    @cached_property
    def pixels(self) -> Pixels | JoinedPixels:
        """The task's images, checked, on the CPU; those of `unlabelled` come last."""
        own, unlabelled = self.indices(self.task)
        pixels = self.train.pixels(own)
        if self.unlabelled is None:
            return pixels
        return JoinedPixels(pixels, self.unlabelled.pixels(unlabelled))

    @cached_property
    def labels(self) -> Tensor:
        """Labels for the learner `[n]`: positions in the class order, `UNLABELLED` or `UNUSED`."""
        spec, (_, unlabelled) = self.spec, self.indices(self.task)
        known = self.true_labels
        if isinstance(spec, LearnerSpec):
            known = known_labels(known, spec.labels, spec.seed, self.stream.order)
        return torch.cat([known, torch.full_like(unlabelled, UNLABELLED)])

    @property
    def true_labels(self) -> Tensor:
        """Positions in the class order `[n]` of the task's images, also where no learner sees them.

        Images of `unlabelled`, which have none, are not among them.
        """
        return self.stream.labels(self.train)[self.indices(self.task)[0]]

    @property
    def learns_unlabelled(self) -> bool:
        """Whether images without a label have a target: the teacher's output, or the past's."""
        spec = self.spec
        if isinstance(spec, CacheSpec):
            return False
        return spec.taught or (spec.reads_past and self.task > 0)

    @cached_property
    def compute(self) -> Compute:
        """The device; the first use acquires it until the end of the job."""
        return compute_of(self.models or self.spec, self.execution)

    def place(self, *learners: Learner | None) -> None:
        """Check the task's images, acquire the device, move backbones and learners to it."""
        _ = self.pixels
        place_backbones(self.models or self.spec, self.backbones, self.compute)
        for learner in filter(None, learners):
            learner.to(self.compute.device)

    def batches(self) -> Batches:
        """Return the training batches of the task."""
        spec, training, ratio, fresh = self.spec, self.spec.training, 1.0, False
        assert training is not None and spec.seed is not None, "only training views have batches"
        if isinstance(spec, LearnerSpec):
            ratio, fresh = spec.training.unlabelled_ratio or ratio, spec.views == "per_draw"
        return Batches(
            pixels=self.pixels.on(self.compute.device),
            labels=self.labels,
            views=views_of(spec.view),
            seed=spec.seed + (_FRESH if spec.student_views is not None else 0),
            task=self.task,
            batch_size=training.batch_size,
            unlabelled=max(1, round(training.batch_size * ratio)),
            taught=self.learns_unlabelled,
            fresh=fresh,
        )

    def checkpoint(
        self, path: str, spec: LearnerSpec, task: int
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Read a learner's artifact; raise `CdlError` if its data or backbones differ."""
        state, metadata = artifacts.load(path, task=task, learner=spec.until(task).to_json())
        self._check_provenance(path, metadata, task)
        return state, metadata

    def cached(self, path: str, spec: CacheSpec) -> CachedOutputs:
        """Read a cache and add its backbones to `fingerprints`; raise `CdlError` as above."""
        cache = CachedOutputs(path, task=self.task, spec=spec.to_json())
        self._check_provenance(path, cache.metadata, self.task)
        self.fingerprints["backbones"] |= cache.inputs["backbones"]
        return cache

    def query(self, name: str, path: str | None) -> tuple[int, Query]:
        """Return the width and the source of a backbone's queries.

        The source is the cache at `path` if there is one, else the backbone itself; if the
        backbone is not loaded, the width is 0 and the source is `no_query`.
        """
        if path is not None:
            assert isinstance(self.spec, LearnerSpec), "only a learner reads cached queries"
            cache = self.cached(path, self.spec.queries(name))
            return cache.width, cache
        if name in self.backbones:
            backbone = self.backbones[name]
            return backbone.width, lambda batch: backbone.query(backbone.prepare(batch.views))
        return 0, no_query

    def _check_provenance(self, path: str, metadata: Mapping[str, Any], task: int) -> None:
        """Raise `CdlError` if an artifact was made from other data or backbones."""
        found, known = metadata["inputs"], self.fingerprints["backbones"]
        shared = known.keys() & found["backbones"].keys()
        found = found | {"backbones": {name: found["backbones"][name] for name in shared}}
        data = self.stream.digest(self.train.about, self.train.classes, task)
        expected: dict[str, Any] = {"data": data, "backbones": {n: known[n] for n in shared}}
        if "unlabelled" in found and self.unlabelled is not None:  # else this job reads none
            expected["unlabelled"] = self.unlabelled.fingerprint
        artifacts.check_provenance(path, found, expected)
