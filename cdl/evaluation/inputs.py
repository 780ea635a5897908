"""What an evaluation reads: the test images, a learner's checkpoints and the cached queries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor

from cdl.backbones.frozen import Backbone
from cdl.data import MANIFEST
from cdl.data.cached import HeldOutQueries
from cdl.data.modalities import views_of
from cdl.data.modalities.items import ItemViews
from cdl.data.packed import Packed, Pixels
from cdl.data.stream import Stream
from cdl.models.build import (
    build_stream,
    compute_of,
    load_backbones,
    place_backbones,
    rebuild_learner,
)
from cdl.models.learner import MEMORY, Learner
from cdl.runtime import artifacts
from cdl.runtime.compute import Compute
from cdl.runtime.jobs import Execution
from cdl.spec import LearnerSpec
from cdl.training.targets import over_test_images


class TestFiles(TypedDict):
    """Files that an evaluation reads, by their names in the rules.

    data: packed folder.
    checkpoints: the learner's artifacts in task order.
    backbones: artifacts of the frozen backbones to load, by name.
    queries: caches of the queries of the test views, by the backbone's name; the others are
        computed.
    """

    data: str
    checkpoints: Sequence[str]
    backbones: Mapping[str, str]
    queries: Mapping[str, str]


@dataclass(frozen=True)
class TestSet:
    """The test images of the learnt tasks, in task order."""

    split: Packed
    stream: Stream
    views: ItemViews
    pixels: Pixels
    indices: Tensor  # [n] positions in the split
    owner: Tensor  # [n] tasks of the images
    labels: Tensor  # [n] positions in the class order
    counts: list[int]  # images of each task

    @classmethod
    def open(
        cls, spec: LearnerSpec, data: str, images_per_class: int | None, n_tasks: int
    ) -> "TestSet":
        """Open the test images of the first `n_tasks` tasks."""
        split = Packed(data, "test")
        stream = build_stream(spec, split)
        tasks = [stream.indices(split, t, images_per_class) for t in range(n_tasks)]
        indices, counts = torch.cat(tasks), [len(part) for part in tasks]
        owner = torch.repeat_interleave(torch.arange(len(tasks)), torch.tensor(counts))
        labels = stream.labels(split)[indices]
        views, pixels = views_of(spec.view), split.pixels(indices)
        return cls(split, stream, views, pixels, indices, owner, labels, counts)


@dataclass(frozen=True)
class Queries:
    """Queries of the test images by backbone, from a cache or computed."""

    test: TestSet
    compute: Compute
    loaded: Mapping[str, Backbone]
    known: Mapping[str, Tensor]

    def __call__(self, name: str | None) -> Tensor | None:
        """Return the queries `[n, Dq]` of a backbone; None without a backbone."""
        if name is None:
            return None
        if name in self.known:
            return self.known[name].to(self.compute.device)
        test, backbone = self.test, self.loaded[name]
        return over_test_images(
            test.pixels,
            test.views,
            self.compute.device,
            lambda x, _: backbone.query(backbone.prepare(x)),
        )


@dataclass(frozen=True)
class Opened:
    """Inputs of an evaluation, all read before the job waits for a device.

    spec: specification of the learner.
    test: the test images.
    loaded: the frozen backbones by name; on the CPU until `place`.
    learner: the learner with the widths of its first checkpoint, before any state is loaded.
    weights: fingerprints of all backbones that are read, also those of cached queries, by name.
    images: entry of the training images in the manifest of the packed data.
    known: cached queries of the test images by backbone.
    """

    spec: LearnerSpec
    test: TestSet
    loaded: Mapping[str, Backbone]
    learner: Learner
    weights: Mapping[str, str]
    images: Mapping[str, Any]
    known: Mapping[str, Tensor]

    @classmethod
    def read(
        cls,
        spec: LearnerSpec,
        images_per_class: int | None,
        n_tasks: int,
        **files: Unpack[TestFiles],
    ) -> "Opened":
        """Read everything but the checkpoints' tensors; raise `CdlError` if a file is damaged."""
        test = TestSet.open(spec, files["data"], images_per_class, n_tasks)
        loaded = load_backbones(spec, files["backbones"])
        record = artifacts.read_json(Path(files["checkpoints"][0]).with_suffix(".json"))
        learner = rebuild_learner(spec, loaded[spec.backbone], record).eval()
        weights = {name: backbone.fingerprint for name, backbone in loaded.items()}
        images = artifacts.read_json(Path(files["data"], MANIFEST))["splits"]["train"]
        known = {}
        for name, path in files["queries"].items():
            made = spec.test_queries(name, images_per_class)
            cache = HeldOutQueries(path, spec=made.to_json())
            artifacts.check_provenance(path, cache.inputs, {"data": test.split.fingerprint})
            weights |= cache.inputs["backbones"]
            known[name] = cache(test.indices)
        return cls(spec, test, loaded, learner, weights, images, known)

    def checkpoint(self, path: str, task: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Read the tensors and the record of the learner after a task.

        Tensors that only later tasks use are dropped, because they can be larger than all others.

        Raises:
            CdlError: the checkpoint is damaged, or was made from other images or weights.
        """
        learner = self.spec.until(task).to_json()
        state, metadata = artifacts.load(path, task=task, learner=learner)
        data = self.test.stream.digest(self.images, self.test.split.classes, task)
        inputs = metadata["inputs"]  # with the teacher's backbones, which are not needed here
        own = {"backbones": {name: inputs["backbones"].get(name) for name in self.weights}}
        made = {"data": data, "backbones": dict(self.weights)}
        artifacts.check_provenance(path, inputs | own, made)
        return {k: t for k, t in state.items() if not k.startswith(MEMORY)}, metadata

    def place(self, execution: Execution) -> Queries:
        """Acquire the device, which may wait for a GPU, and move backbones and learner to it."""
        compute = compute_of(self.spec, execution)
        place_backbones(self.spec, self.loaded, compute)
        self.learner.to(compute.device)
        return Queries(self.test, compute, self.loaded, self.known)
