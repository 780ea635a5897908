"""What frozen models say of every view, computed once: queries, and a teacher's logits.

A view is a function of (seed, image, epoch), so what a frozen model makes of it is too: it is
the same for every learner, distiller, alpha and temperature, and is read from a cache. In fp32
the cache equals the computation on the spot, in fp16 up to its rounding.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from cdl import artifacts
from cdl.assembly import (
    build_batches,
    build_learner,
    build_stream,
    check_inputs,
    load_backbones,
    select_compute,
    versions,
)
from cdl.data.batches import Batch, Batches
from cdl.data.packed import Packed, Pixels
from cdl.data.stream import Stream
from cdl.data.views import Views
from cdl.errors import CdlError
from cdl.model import Teacher
from cdl.state import State

log = logging.getLogger(__name__)
TEST_BATCH = 200


class Cache:
    """Values `[E, n, W]` by epoch and place in the task, on the device.

    Attributes:
        width: `W`.
        inputs: fingerprints of what they were made from.
    """

    def __init__(self, path: str, device: torch.device, **expected: Any) -> None:
        """Read a cache; raise `CdlError` if it is damaged or is not what is expected."""
        tensors, self.metadata = artifacts.load(path, **expected)
        self.values = tensors["values"].to(device)
        self.width: int = self.values.shape[-1]
        self.inputs: dict[str, Any] = self.metadata["inputs"]

    def __call__(self, batch: Batch) -> Tensor:
        """Return a batch's values `[B, W]` in fp32."""
        return self.values[batch.epoch, batch.places].float()


class TestQueries:
    """Queries of test images, by their index in the split."""

    def __init__(self, path: str, device: torch.device, **expected: Any) -> None:
        """Read the artifact; raise `CdlError` if it is damaged or is not what is expected."""
        tensors, metadata = artifacts.load(path, **expected)
        self.indices, self.values = tensors["indices"], tensors["values"].to(device)
        self.inputs: dict[str, Any] = metadata["inputs"]

    def __call__(self, indices: Tensor) -> Tensor:
        """Return the queries `[n, Dq]` of images in fp32."""
        return self.values[torch.searchsorted(self.indices, indices)].float()


def write_queries(
    *,
    spec: dict[str, Any],
    task: int,
    data: str,
    backbone: str,
    output: str,
    limit_gb: float,
    device: str = "auto",
    states: str | None = None,
    save_minutes: float = 1.0,
) -> int:
    """Compute and write the queries of all training views of a task.

    Args:
        spec: see `cdl.specs.queries_spec`.
        task: counted from 0.
        data: packed folder.
        backbone: path of the query backbone's artifact.
        output: cache to write (.safetensors; .json beside it).
        limit_gb: most that the caches of all tasks together may take.
        device: see `Compute.select`.
        states: folder for unfinished work, see `cdl.state`; None keeps none.
        save_minutes: between two saves of it.

    Returns:
        Bytes of the cache.

    Raises:
        CdlError: the caches would be too large, or an input is damaged.
    """
    compute = select_compute(spec, device)
    train = Packed(data, "train")
    stream = build_stream(spec, train)
    loaded = load_backbones(spec, {spec["backbone"]: backbone}, compute)[spec["backbone"]]
    batches = build_batches(spec, task, train, stream, compute)
    _refuse_too_much(spec, stream, train, [loaded.width] * len(stream.sizes), limit_gb, "queries")
    inputs = {"data": train.fingerprint, "backbones": {spec["backbone"]: loaded.fingerprint}}
    made_of = {"task": task, "spec": spec, "inputs": inputs}
    with State(states, made_of | {"versions": versions()}, save_minutes) as state:
        width, query = loaded.width, loaded.query
        values = over_views(batches, spec, width, lambda batch: query(batch.images), state)
        size = _save(output, {"values": values}, made_of)
        state.remove()
    return size


@torch.no_grad()
def write_test_queries(
    *, spec: dict[str, Any], data: str, backbone: str, output: str, device: str = "auto"
) -> int:
    """Compute and write the queries of the test views; arguments as in `write_queries`."""
    compute = select_compute(spec, device)
    test = Packed(data, "test")
    loaded = load_backbones(spec, {spec["backbone"]: backbone}, compute)[spec["backbone"]]
    everything = Stream.build(len(test.classes), 1, "natural", 0)
    indices = everything.indices(test, 0, spec["images_per_class"])
    views = Views(**spec["view"])
    pixels = test.pixels(indices)
    values = over_test_images(
        pixels, views, compute.device, lambda images, _: loaded.query(images)
    ).cpu()
    inputs = {"data": test.fingerprint, "backbones": {spec["backbone"]: loaded.fingerprint}}
    tensors = {"indices": indices, "values": _rounded(values, spec)}
    return _save(output, tensors, {"spec": spec, "inputs": inputs})


def write_targets(
    *,
    spec: dict[str, Any],
    task: int,
    data: str,
    backbone: str,
    teacher: str,
    output: str,
    limit_gb: float,
    queries: str | None = None,
    device: str = "auto",
    states: str | None = None,
    save_minutes: float = 1.0,
) -> int:
    """Compute and write a teacher's logits of the current classes for all views of a task.

    Args:
        spec: see `cdl.specs.targets_spec`.
        task: counted from 0.
        data: packed folder.
        backbone: path of the teacher's backbone's artifact.
        teacher: the teacher's artifact of the task.
        output: cache to write.
        limit_gb: most that the targets of all tasks together may take.
        queries: cache of what the teacher's prompts read, None if they read nothing.
        device: see `Compute.select`.
        states: folder for unfinished work, see `cdl.state`; None keeps none.
        save_minutes: between two saves of it.

    Returns:
        Bytes of the cache.

    Raises:
        CdlError: as `write_queries`; or an input belongs to another configuration.
    """
    views, teacher_spec = spec["views"], spec["teacher"]
    compute = select_compute(views, device)
    train = Packed(data, "train")
    stream = build_stream(views, train)
    name, query = teacher_spec["backbone"], None
    vit = load_backbones(views, {name: backbone}, compute)[name]
    inputs = {"data": train.fingerprint, "backbones": {name: vit.fingerprint}}
    if queries is not None:
        query = Cache(queries, compute.device, task=task, spec=views)
        check_inputs(queries, query.metadata, inputs)
        inputs["backbones"] |= query.inputs["backbones"]
    state, metadata = artifacts.load(teacher, task=task, learner=teacher_spec)
    check_inputs(teacher, metadata, inputs)
    learner = build_learner(teacher_spec, stream, vit, metadata["widths"], None)
    learner.load_state(state)
    if spec.get("apt_teacher") == "previous":
        learner.prompts.undo_merge()
    guide, classes = Teacher(learner), stream.classes(task)

    def logits(batch: Batch) -> Tensor:
        return guide(batch.images, query(batch) if query else None, task, classes, False).logits

    batches = build_batches(views, task, train, stream, compute)
    _refuse_too_much(views, stream, train, list(stream.sizes), limit_gb, "teacher targets")
    made_of = {"task": task, "spec": spec, "inputs": inputs | {"teacher": metadata["sha256"]}}
    shape = {"width": vit.width, "depth": vit.depth}
    about = {"teacher_shape": shape, "widths": metadata["widths"]}
    with State(states, made_of | {"versions": versions()}, save_minutes) as state:
        values = over_views(batches, views, stream.sizes[task], logits, state)
        size = _save(output, {"values": values}, made_of | about)
        state.remove()
    return size


def over_test_images(
    pixels: Pixels,
    views: Views,
    device: torch.device,
    function: Callable[[Tensor, Tensor], Tensor],
    n: int | None = None,
) -> Tensor:
    """Concatenate `function(test views [B, 3, H, W], places [B])` over the first `n` images."""
    results = []
    for places in torch.arange(len(pixels) if n is None else n).split(TEST_BATCH):
        parts = pixels.parts(places)
        images = torch.cat([views.test(x.to(device), s.to(device)) for x, s, _ in parts])
        results.append(function(images, places.to(device)))
    return torch.cat(results)


def over_views(
    batches: Batches,
    spec: Mapping[str, Any],
    width: int,
    function: Callable[[Batch], Tensor],
    state: State,
) -> Tensor:
    """Return `function` of every view, `[E, n, width]`, in the batches that training sees."""
    epochs, n = spec["training"]["epochs"], len(batches.indices)
    values, at = torch.zeros(epochs, n, width, dtype=_dtype(spec)), (0, 0)
    if (saved := state.load()) is not None:
        values, at = saved[0]["values"], tuple(saved[1]["at"])
        log.info("going on at epoch %d, batch %d", *at)
    with torch.no_grad():
        for epoch in range(at[0], epochs):
            made = values[epoch].float().to(batches.device)  # a GPU's queue is waited for once
            for i, batch in enumerate(batches.every(epoch)):
                if (epoch, i) < at:
                    continue
                made[batch.places] = function(batch)
                if state.due():
                    values[epoch] = _rounded(made.cpu(), spec)
                    state.save({"values": values}, {"at": (epoch, i + 1)})
            values[epoch] = _rounded(made.cpu(), spec)
    return values


def _dtype(spec: Mapping[str, Any]) -> torch.dtype:
    return getattr(torch, spec.get("cache_dtype", "float32"))


def _rounded(values: Tensor, spec: Mapping[str, Any]) -> Tensor:
    rounded = values.to(_dtype(spec))
    if not rounded.isfinite().all():
        raise CdlError(
            f"compute.targets_dtype: {_dtype(spec)} cannot hold values up to "
            f"{values.abs().max():.3g}; set float32, or look why the model says them"
        )
    return rounded


def _refuse_too_much(
    spec: Mapping[str, Any],
    stream: Stream,
    train: Packed,
    widths: list[int],
    limit_gb: float,
    what: str,
) -> None:
    size = _dtype(spec).itemsize * spec["training"]["epochs"]
    numbers = (
        len(stream.indices(train, task, spec["images_per_class"])) * width
        for task, width in enumerate(widths)
    )
    needed = size * sum(numbers) / 1e9
    log.info("%s of all tasks: %.3g GB", what, needed)
    if needed > limit_gb:
        raise CdlError(
            f"compute.targets_max_gb: {limit_gb:g}, but the {what} of all tasks need "
            f"{needed:.3g} GB on disk; raise it, or set compute.targets to online"
        )


def _save(output: str, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> int:
    size = sum(tensor.nbytes for tensor in tensors.values())
    artifacts.save(output, tensors, {**metadata, "bytes": size, "versions": versions()})
    log.info("wrote %s: %.3f MB", output, size / 1e6)
    return size
