"""Build streams, backbones and learners from specifications and artifacts."""

import platform
from collections.abc import Mapping
from typing import Any

import numpy
import timm
import torch
from torch import nn

import cdl
from cdl.backbones.frozen import Backbone
from cdl.backbones.kernels import kernels
from cdl.backbones.shape import BackboneShape
from cdl.data.modalities import backbone_class
from cdl.data.packed import Packed
from cdl.data.stream import Stream
from cdl.distillers.base import Distiller as Objective
from cdl.distillers.base import DistillerContext
from cdl.methods.base import PromptContext, PromptMethod
from cdl.methods.heads import CosineHead
from cdl.models.learner import Learner
from cdl.models.returned import built
from cdl.runtime.compute import Compute
from cdl.runtime.jobs import Execution
from cdl.runtime.registry import source_hash
from cdl.runtime.seeds import generator
from cdl.spec import AnySpec, CacheSpec, ClassMeans, Distiller, LearnerSpec, Method, precision_of


def versions(spec: AnySpec | None = None) -> dict[str, str]:
    """Return the versions that numbers depend on, and the kernels of this machine's CPU.

    Modules of other packages in `spec` are there by name, with the hash of their source; see
    `cdl.inventory.overwriting.changed_sources`.
    """
    learner = spec.teacher if isinstance(spec, CacheSpec) else spec
    units = (learner.method, learner.distiller, learner.teacher_method) if learner else ()
    modules = {unit.facts.module for unit in units if unit and not unit.facts.built_in}
    return {
        "cdl": cdl.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "numpy": numpy.__version__,
        "cpu_kernels": str(kernels()),
        **{module: source_hash(module) for module in sorted(modules)},
    }


def compute_of(spec: AnySpec, execution: Execution) -> Compute:
    """Wait for the device, select it, and apply the own backbone's precision."""
    execution.lease()
    precision = precision_of(spec, spec.backbone)
    return Compute.select(execution.device, precision, execution.capture).apply()


def load_backbones(spec: AnySpec, paths: Mapping[str, str]) -> dict[str, Backbone]:
    """Load backbones by name, on the CPU, with the input sizes of a specification."""
    sizes = {**dict.fromkeys(paths, spec.view.input_size), **(spec.sizes or {})}
    kind: type[Backbone] = backbone_class(spec.view)
    return {n: kind.load(path, sizes[n], spec.normalization) for n, path in paths.items()}


def place_backbones(spec: AnySpec, backbones: Mapping[str, Backbone], compute: Compute) -> None:
    """Move backbones to the device, each in its precision in a specification."""
    for name, backbone in backbones.items():
        backbone.place(compute.rounding(precision_of(spec, name)))


def build_stream(spec: AnySpec, data: Packed) -> Stream:
    """Return the stream of tasks of a specification, which is not one of test images."""
    assert spec.stream is not None and spec.seed is not None, "only test images have no stream"
    return Stream.build(data.classes, spec.stream.tasks, spec.stream.class_order, spec.seed)


def build_learner(
    spec: LearnerSpec,
    backbone: Backbone,
    widths: Mapping[str, int],
    teacher: BackboneShape | None,
) -> Learner:
    """Build a learner as it is before its first task, without classes and pools.

    Args:
        spec: specification of the learner.
        backbone: its frozen backbone.
        widths: width of its `query` (0 if it is not used) and, with a teacher, of the
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
        class_means=isinstance(spec.alignment, ClassMeans),
    ).to(backbone.device)


def rebuild_learner(spec: LearnerSpec, backbone: Backbone, record: Mapping[str, Any]) -> Learner:
    """Build a learner as `build_learner` does, with the widths in the record of its artifact."""
    teacher = record["teacher_shape"] and BackboneShape(**record["teacher_shape"])
    return build_learner(spec, backbone, record["widths"], teacher)


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
    class_means: bool = False,
) -> Learner:
    """Build a learner from method and distiller.

    Args:
        backbone: its frozen backbone.
        query_width: width of the query of its prompts.
        method: method and options of its prompts.
        distiller: distiller and options.
        n_tasks: tasks of the stream, if all tasks share a pool; else None.
        keys: keys of the random initialisation.
        auxiliary_weight: see `Learner`.
        teacher: shape of the teacher's backbone, None without a teacher.
        teacher_query_width: width of the query of the teacher's prompts.
        n_classes: initial number of classes of the heads.
        class_means: whether all heads are cosine heads for class means, not the method's own.
    """

    def prompts(shape: BackboneShape, width: int | None, part: str) -> PromptMethod:
        source = generator(*keys, part)
        context = PromptContext(shape.width, shape.depth, width or 0, n_tasks, source)
        kind = method.facts.load()
        made: PromptMethod = built(kind, PromptMethod, method.facts, context, method.options)
        return made

    student = BackboneShape(backbone.width, backbone.depth)
    own = prompts(student, query_width, "prompts")

    def head(source: torch.Generator) -> nn.Module:
        if class_means:
            return CosineHead(backbone.width, n_classes, source)
        return own.make_head(backbone.width, n_classes, source)

    teacher_prompts = None
    if distiller.facts.maps_prompts and teacher is not None:
        # its values are replaced by the teacher's, unless a control maps initial ones
        teacher_prompts = prompts(teacher, teacher_query_width, "unused")
    source = generator(*keys, "distiller")
    context = DistillerContext(student, teacher, teacher_prompts, n_tasks, head, source)
    return Learner(
        backbone,
        own,
        head(generator(*keys, "head")),
        built(distiller.facts.load(), Objective, distiller.facts, context, distiller.options),
        needs_query=method.facts.needs_query,
        compared_blocks=distiller.facts.blocks(student.depth),
        auxiliary_weight=auxiliary_weight,
    )
