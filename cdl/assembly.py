"""From a specification and artifacts to objects: stream, batches, backbones, learners."""

import platform
from collections.abc import Mapping
from typing import Any

import numpy
import timm
import torch

import cdl
from cdl import artifacts
from cdl.backbones import Backbone
from cdl.compute import Compute
from cdl.data.batches import Batches
from cdl.data.packed import Packed
from cdl.data.stream import Stream
from cdl.data.views import Views
from cdl.distillers.base import Shape
from cdl.model import Learner, build


def versions() -> dict[str, str]:
    """Return the versions that numbers depend on."""
    return {
        "cdl": cdl.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "numpy": numpy.__version__,
    }


def select_compute(spec: Mapping[str, Any], device: str, capture: bool = False) -> Compute:
    """Return the device, with the precision of a specification."""
    return Compute.select(device, spec.get("precision", "fp32"), capture)


def load_backbones(
    spec: Mapping[str, Any], paths: Mapping[str, str], compute: Compute
) -> dict[str, Backbone]:
    """Load backbones by name on the device, as a specification wants them."""
    size, normalization = spec["view"]["size"], spec["normalization"]
    return {n: Backbone.load(p, size, normalization).place(compute) for n, p in paths.items()}


def build_stream(spec: Mapping[str, Any], data: Packed) -> Stream:
    """Return the stream of tasks of a specification."""
    return Stream.build(len(data.classes), **spec["stream"], seed=spec["seed"])


def build_batches(
    spec: Mapping[str, Any], task: int, data: Packed, stream: Stream, compute: Compute
) -> Batches:
    """Return the training batches of a task."""
    return Batches(
        data=data,
        indices=stream.indices(data, task, spec["images_per_class"]),
        labels=stream.labels(data),
        views=Views(**spec["view"]),
        seed=spec["seed"],
        task=task,
        batch_size=spec["training"]["batch_size"],
        device=compute.device,
    )


def build_learner(
    spec: Mapping[str, Any],
    stream: Stream,
    backbone: Backbone,
    widths: Mapping[str, int],
    teacher: Shape | None,
) -> Learner:
    """Build a learner at its start.

    Args:
        spec: specification of the learner.
        stream: its tasks.
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
        n_classes=len(stream.order),
        n_tasks=len(stream.sizes),
        keys=keys(spec),
        auxiliary_weight=spec["auxiliary_weight"],
        teacher=teacher,
        teacher_query_width=widths.get("teacher_query"),
    ).to(backbone.mean.device)


def keys(spec: Mapping[str, Any]) -> tuple[str | int, ...]:
    """Return what fixes a learner's start: equal for all students of a pair, not for teachers."""
    return spec["seed"], spec["role"], spec["backbone"]


def check_inputs(path: str, metadata: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
    """Raise `CdlError` unless an artifact was made from the same data and backbones."""
    theirs = metadata["inputs"]
    used = {n: f for n, f in inputs["backbones"].items() if n in theirs["backbones"]}
    artifacts.check(path, theirs, {"data": inputs["data"], "backbones": used})
