"""Caches of frozen models' outputs for all views: queries and a teacher's logits.

A view is a function of (seed, image, epoch), so the output of a frozen model is one too. It is the
same for every learner, distiller, alpha and temperature, so it is computed once and read from a
cache. In fp32 the cache equals the outputs computed online; in fp16 it is rounded. Views that are
the same in every epoch are computed in the batches of the first, which for texts, padded to the
longest of a batch, may differ in the last bits.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cdl.data.batches import Batch, Batches
from cdl.data.modalities import views_of
from cdl.data.modalities.items import ItemViews
from cdl.data.packed import JoinedPixels, Packed, Pixels, joined
from cdl.data.stream import Stream
from cdl.models.build import compute_of, load_backbones, place_backbones, versions
from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError
from cdl.runtime.jobs import DEFAULT, Execution
from cdl.spec import AnySpec, CacheSpec, images_of
from cdl.training.checkpointing import State
from cdl.training.context import TaskContext
from cdl.training.teacher import open_teacher

log = logging.getLogger(__name__)
TEST_BATCH = {"cpu": 50, "cuda": 200}  # images per batch; larger batches exceed a CPU's caches


def write_queries(
    spec: CacheSpec,
    task: int,
    output: str,
    *,
    data: str,
    backbone: str,
    unlabelled: str | None = None,
    execution: Execution = DEFAULT,
) -> None:
    """Compute and write the queries of a task's images, at training or test views.

    Args:
        spec: specification of the queries after the task.
        task: counted from 0.
        output: cache to write (.safetensors, and .json with the same name).
        data: packed folder.
        backbone: path of the query backbone's artifact.
        unlabelled: packed folder of unlabelled images, if the specification has them.
        execution: how to compute.

    Raises:
        CdlError: the caches exceed the size limit, or an input is damaged.
    """
    name = spec.backbone
    context = TaskContext.open(spec, task, data, {name: backbone}, execution, unlabelled=unlabelled)
    vit = context.backbones[name]
    _validate_size(context, [vit.width] * len(context.stream.sizes), execution, "queries")
    provenance = {"task": task, "spec": spec.to_json(), "inputs": context.fingerprints}
    context.place()

    def query(views: Tensor) -> Tensor:
        return vit.query(vit.prepare(views))

    if spec.views == "train":
        _write_over_views(
            context, vit.width, lambda b: query(b.views), output, provenance, {}, execution
        )
        return
    values = over_task_images(context, lambda views, _: query(views))
    _save(spec, output, {"values": values[None].cpu()}, provenance)


@torch.no_grad()
def write_test_queries(
    spec: CacheSpec,
    output: str,
    *,
    data: str,
    backbone: str,
    execution: Execution = DEFAULT,
) -> None:
    """Compute and write the queries of all test images, see `write_queries`."""
    test = Packed(data, "test")
    backbones = load_backbones(spec, {spec.backbone: backbone})
    loaded = backbones[spec.backbone]
    everything = Stream.build(test.classes, 1, "natural", 0)
    indices = everything.indices(test, 0, images_of(spec, 0)).sort().values
    views = views_of(spec.view)
    pixels = test.pixels(indices)
    compute = compute_of(spec, execution)
    place_backbones(spec, backbones, compute)
    values = over_test_images(
        pixels, views, compute.device, lambda x, _: loaded.query(loaded.prepare(x))
    ).cpu()
    inputs = {"data": test.fingerprint, "backbones": {spec.backbone: loaded.fingerprint}}
    tensors = {"indices": indices, "values": _rounded(values, spec)}
    _save(spec, output, tensors, {"spec": spec.to_json(), "inputs": inputs})


def write_targets(
    spec: CacheSpec,
    task: int,
    output: str,
    *,
    data: str,
    backbone: str,
    teacher: str,
    queries: str | None = None,
    unlabelled: str | None = None,
    execution: Execution = DEFAULT,
) -> None:
    """Compute and write a teacher's logits for a task's images, at all training or test views.

    They are those of the task's classes, or of all classes seen so far.

    Args:
        spec: specification of the targets after the task.
        task: counted from 0.
        output: cache to write.
        data: packed folder.
        backbone: artifact of the teacher's backbone.
        teacher: the teacher's artifact of the task.
        queries: cache of the teacher's queries; None if its prompts do not depend on a query.
        unlabelled: packed folder of unlabelled images; None without them.
        execution: how to compute.

    Raises:
        CdlError: as in `write_queries`, or an input belongs to another configuration.
    """
    assert spec.teacher is not None and spec.columns is not None, "only targets have a teacher"
    name, columns = spec.teacher.backbone, spec.columns
    context = TaskContext.open(
        spec, task, data, {name: backbone}, execution, spec.teacher, unlabelled
    )
    query = context.cached(queries, spec.queries) if queries else None
    model, metadata = open_teacher(context, teacher, spec.teacher, spec.apt_teacher)
    stream, vit = context.stream, context.backbones[name]
    classes = stream.columns(task, columns)

    def logits(views: Tensor, epoch: int, positions: Tensor) -> Tensor:
        given = None if query is None else query.at(epoch, positions)
        return model(views, given, task, classes).logits

    widths = [len(stream.order[stream.columns(t, columns)]) for t in range(len(stream.sizes))]
    _validate_size(context, widths, execution, "teacher targets")
    read = context.fingerprints | {"teacher": metadata["sha256"]}
    provenance = {"task": task, "spec": spec.to_json(), "inputs": read}
    shape = {"width": vit.width, "depth": vit.depth}
    about = {"teacher_shape": shape, "widths": metadata["widths"]}
    context.place(model.learner)
    if spec.views == "held_out":
        values = over_task_images(context, lambda views, rows: logits(views, 0, rows))
        _save(spec, output, {"values": values[None].cpu()}, provenance | about)
        return

    def of_batch(batch: Batch) -> Tensor:
        return logits(batch.views, batch.epoch, batch.positions)

    _write_over_views(context, widths[task], of_batch, output, provenance, about, execution)


def over_test_images(
    pixels: Pixels | JoinedPixels,
    views: ItemViews,
    device: torch.device,
    function: Callable[[Tensor, Tensor], Tensor],
    positions: Tensor | None = None,
) -> Tensor:
    """Return `function` of the test views of images, concatenated over batches.

    The arguments of `function` are views, of images `[B, 3, H, W]`, and positions `[B]`.
    `positions` selects images; None selects all.
    """
    results = []
    positions = torch.arange(len(pixels)) if positions is None else positions
    for some in positions.split(TEST_BATCH[device.type]):
        parts = pixels.parts(some)
        images = joined([views.test(x.to(device), s.to(device)) for x, s, _ in parts])
        results.append(function(images, some.to(device)))
    return torch.cat(results)


@torch.no_grad()
def over_task_images(
    context: TaskContext[AnySpec],
    function: Callable[[Tensor, Tensor], Tensor],
    positions: Tensor | None = None,
) -> Tensor:
    """Return `function` of the test views of a task's training images, see `over_test_images`."""
    views, device = views_of(context.spec.view), context.compute.device
    return over_test_images(context.pixels, views, device, function, positions)


def over_views(
    batches: Batches,
    spec: AnySpec,
    width: int,
    function: Callable[[Batch], Tensor],
    state: State,
) -> Tensor:
    """Return `function` of all views, `[E, n, width]`, in the batches of training.

    Views that are the same in every epoch are computed once.
    """
    assert spec.training is not None, "only training views have epochs"
    epochs, n = spec.training.epochs, len(batches.indices)
    values, at = torch.zeros(epochs, n, width, dtype=_dtype(spec)), (0, 0)
    if (saved := state.load()) is not None:
        values, at = saved[0]["values"], tuple(saved[1]["at"])
        log.info("resuming at epoch %d, batch %d", *at)
    with torch.no_grad():
        for epoch in range(at[0], epochs):
            if epoch and batches.views.fixed:
                values[epoch] = values[0]
                continue
            made = values[epoch].float().to(batches.device)  # one copy per epoch, one sync
            for i, batch in enumerate(batches.all_images(epoch)):
                if (epoch, i) < at:
                    continue
                made[batch.positions] = function(batch)
                if state.due():
                    values[epoch] = _rounded(made.cpu(), spec)
                    state.save({"values": values}, {"at": (epoch, i + 1)})
            values[epoch] = _rounded(made.cpu(), spec)
    return values


def _write_over_views(
    context: TaskContext[AnySpec],
    width: int,
    function: Callable[[Batch], Tensor],
    output: str,
    provenance: dict[str, Any],
    about: dict[str, Any],
    execution: Execution,
) -> None:
    """Compute and write `function` of all views; resume from a saved state."""
    spec = context.spec
    job = provenance | {"versions": versions(spec)}
    with State(execution.states, job, execution.save_minutes) as state:
        values = over_views(context.batches(), spec, width, function, state)
        _save(spec, output, {"values": values}, provenance | about)
        state.remove()


def _dtype(spec: AnySpec) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, spec.cache_dtype or "float32")
    return dtype


def _rounded(values: Tensor, spec: AnySpec) -> Tensor:
    rounded = values.to(_dtype(spec))
    if not rounded.isfinite().all():
        raise CdlError(
            f"compute.targets_dtype: {_dtype(spec)} cannot hold values up to "
            f"{values.abs().max():.3g}; set float32, or check the model for such large outputs"
        )
    return rounded


def _validate_size(
    context: TaskContext[AnySpec], widths: list[int], execution: Execution, what: str
) -> None:
    training = context.spec.training
    size = _dtype(context.spec).itemsize * (1 if training is None else training.epochs)
    images = (sum(map(len, context.indices(task))) for task in range(len(widths)))
    numbers = (n * width for n, width in zip(images, widths, strict=True))
    needed, tasks = size * sum(numbers) / 1e9, f"tasks 1 to {len(widths)}"
    log.info("%s of %s: %.3g GB", what, tasks, needed)
    if needed > execution.limit_gb:
        raise CdlError(
            f"compute.targets_max_gb: {execution.limit_gb:g}, but the {what} of {tasks} need "
            f"{needed:.3g} GB on disk; set a larger limit, or set compute.targets to online"
        )


def _save(spec: AnySpec, output: str, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    size = sum(tensor.nbytes for tensor in tensors.values())
    artifacts.save(output, tensors, {**metadata, "bytes": size, "versions": versions(spec)})
    log.info("wrote %s: %.3f MB", output, size / 1e6)
