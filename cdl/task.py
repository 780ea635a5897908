"""One task of one learner, from artifacts to an artifact: what the rules train and distil run."""

import logging
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import timm
import torch

import cdl
from cdl import artifacts
from cdl.backbones import Backbone
from cdl.data import Batches, Packed, Stream, Views
from cdl.distillers.base import Shape
from cdl.model import Learner, Teacher, build
from cdl.training import per_epoch, train_task

log = logging.getLogger(__name__)


def device() -> torch.device:
    """Return the first CUDA device if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def versions() -> dict[str, str]:
    """Return the versions that numbers depend on."""
    return {
        "cdl": cdl.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "numpy": numpy.__version__,
    }


def load_backbones(spec: Mapping[str, Any], paths: Mapping[str, str]) -> dict[str, Backbone]:
    """Load backbones by name on the device, as a learner's specification wants them."""
    size, normalization = spec["view"]["size"], spec["normalization"]
    return {n: Backbone.load(p, size, normalization).to(device()) for n, p in paths.items()}


def build_stream(spec: Mapping[str, Any], data: Packed) -> Stream:
    """Return the stream of tasks of a learner's specification."""
    return Stream.build(len(data.classes), **spec["stream"], seed=spec["seed"])


def build_learner(
    spec: Mapping[str, Any],
    stream: Stream,
    backbone: Backbone,
    widths: Mapping[str, int],
    teacher: Shape | None,
) -> Learner:
    """Build a learner at its start.

    Args:
        spec: specification of the learner (see `workflow/grid.py`).
        stream: its tasks.
        backbone: its frozen ViT.
        widths: width of its `query` and, with a teacher, of the `teacher_query`.
        teacher: shape of the teacher's backbone.
    """
    return build(
        backbone=backbone,
        query_width=widths["query"],
        method=spec["method"],
        distiller=spec["distiller"],
        n_classes=len(stream.order),
        n_tasks=len(stream.sizes),
        keys=_keys(spec),
        auxiliary_weight=spec["auxiliary_weight"],
        teacher=teacher,
        teacher_query_width=widths.get("teacher_query"),
    ).to(device())


def learn_task(
    *,
    spec: dict[str, Any],
    task: int,
    data: str,
    backbones: Mapping[str, str],
    output: str,
    losses: str,
    previous: str | None = None,
    teacher: str | None = None,
    teacher_spec: dict[str, Any] | None = None,
) -> None:
    """Learn one task and write its artifact and loss curve.

    Args:
        spec: specification of the learner, stored in the artifact.
        task: counted from 0.
        data: packed folder.
        backbones: paths of all backbone artifacts needed, by name.
        output: artifact to write (.safetensors; .json beside it).
        losses: CSV to write, see `cdl.training.per_epoch`.
        previous: the learner's artifact of the task before; None for task 0.
        teacher: the teacher's artifact of the same task; None without a teacher.
        teacher_spec: its specification.

    Raises:
        CdlError: an input is damaged or belongs to another configuration, or a loss is not
            finite; then nothing is written.
    """
    train = Packed(data, "train")
    stream = build_stream(spec, train)
    loaded = load_backbones(spec, backbones)
    backbone, query = loaded[spec["backbone"]], loaded[spec["query"]]
    inputs = {
        "data": train.fingerprint,
        "backbones": {name: b.fingerprint for name, b in loaded.items()},
    }
    widths, shape, guide = {"query": query.width}, None, None
    if teacher is not None:
        tutor = loaded[teacher_spec["backbone"]]
        tutor_query = loaded[teacher_spec["query"]]
        shape = Shape(tutor.width, tutor.depth)
        widths["teacher_query"] = tutor_query.width
        state, metadata = artifacts.load(teacher, task=task, learner=teacher_spec)
        _check_inputs(teacher, metadata, inputs)
        guide = build_learner(teacher_spec, stream, tutor, {"query": tutor_query.width}, None)
        guide.load_state(state)
        inputs["teacher"] = metadata["sha256"]
    learner = build_learner(spec, stream, backbone, widths, shape)
    if previous is not None:
        state, metadata = artifacts.load(previous, task=task - 1, learner=spec)
        _check_inputs(previous, metadata, inputs)
        learner.load_state(state)
        inputs["previous"] = metadata["sha256"]
    signal = None
    if guide is not None:
        if spec.get("apt_teacher") == "previous":
            guide.prompts.undo_merge()
        signal = Teacher(guide, None if tutor_query is query else tutor_query)
        learner.distiller.read_teacher(guide.prompts)
    learner.start_task(task, *_keys(spec))
    training = dict(spec["training"])
    batches = Batches(
        data=train,
        indices=stream.indices(train, task, spec["images_per_class"]),
        labels=stream.labels(train),
        views=Views(**spec["view"]),
        seed=spec["seed"],
        task=task,
        batch_size=training.pop("batch_size"),
        device=device(),
    )
    history = train_task(
        learner,
        batches,
        query=query.query,
        teacher=signal,
        task=task,
        classes=stream.classes(task),
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
            "inputs": inputs,
            "widths": widths,
            "teacher_shape": None if shape is None else vars(shape),
            "trainable_parameters": sum(p.numel() for p in learner.learnables()),
            "versions": versions(),
        },
    )
    log.info("wrote %s", Path(output))


def _keys(spec: Mapping[str, Any]) -> tuple[str | int, ...]:
    """Return what fixes a learner's start: equal for all students of a pair, not for teachers."""
    return spec["seed"], spec["role"], spec["backbone"]


def _check_inputs(path: str, metadata: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
    """Raise `CdlError` unless an artifact was made from the same data and backbones."""
    used = {name: inputs["backbones"][name] for name in metadata["inputs"]["backbones"]}
    artifacts.check(path, metadata["inputs"], {"data": inputs["data"], "backbones": used})
