"""A teacher as a student's job sees it: its outputs for a batch, computed or read from a cache."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cdl.backbones.shape import BackboneShape
from cdl.data.batches import Batch
from cdl.distillers.base import TeacherOutput
from cdl.models.build import Query, TaskContext, build_learner
from cdl.models.learner import Learner
from cdl.runtime.artifacts import check_provenance
from cdl.spec import LearnerSpec, TaskSpec


class Teacher:
    """A frozen learner in eval mode that answers with a `TeacherOutput`."""

    def __init__(self, learner: Learner) -> None:
        """Freeze a learner, the teacher after the task being distilled."""
        self.learner = learner.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(
        self,
        images: Tensor,
        query: Tensor | None,
        task: int,
        classes: slice,
        keep_blocks: int = 0,
    ) -> TeacherOutput:
        """Return logits of the current classes for views `[B, 3, H, W]` and the teacher's query."""
        output = self.learner(images, query, task, keep_blocks=keep_blocks)
        return TeacherOutput(output.logits[:, classes], query, output.blocks)


def open_teacher(
    context: TaskContext[TaskSpec],
    path: str,
    spec: LearnerSpec,
    apt_teacher: str | None,
) -> tuple[Teacher, dict[str, Any]]:
    """Read the teacher's artifact of a context's task and run it on its backbone.

    Args:
        context: it holds the teacher's backbone.
        path: the artifact.
        spec: specification of the teacher.
        apt_teacher: `previous` undoes APT's last merge, see `cdl.methods.apt`.

    Returns:
        The teacher, and the metadata of its artifact.

    Raises:
        CdlError: the artifact is damaged or belongs to another configuration.
    """
    state, metadata = context.checkpoint(path, spec, context.task)
    backbone = context.backbones[spec.backbone]
    learner = build_learner(spec, backbone, metadata["widths"], None)
    learner.load_state(state)
    if apt_teacher == "previous":
        learner.prompts.undo_merge()
    return Teacher(learner), metadata


@dataclass(frozen=True)
class TeacherSource:
    """What a student's job knows of its teacher.

    shape: of the teacher's backbone.
    query_width: width of the query that the teacher's prompts read.
    prompts: state of the teacher's prompts, empty where nobody maps them.
    output: a batch and the student's query to what the teacher says of it.
    learner: the teacher itself, None where its cache answers.
    """

    shape: BackboneShape
    query_width: int
    prompts: Mapping[str, Tensor]
    output: Callable[[Batch, Tensor | None], TeacherOutput]
    learner: Learner | None = None

    @classmethod
    def open(
        cls,
        context: TaskContext[LearnerSpec],
        spec: LearnerSpec,
        query: Query,
        *,
        path: str | None,
        targets: str | None,
    ) -> "TeacherSource":
        """Open what is given of a teacher: its artifact, the cache of its logits, or both.

        Args:
            context: of the student's task; its fingerprints gain the teacher's.
            spec: specification of the teacher after the task.
            query: of the teacher's prompts.
            path: the teacher's artifact of the task, or None.
            targets: the cache of its logits, or None.

        Raises:
            CdlError: one is damaged, or they do not belong together.
        """
        if targets is not None:
            return cls._cached(context, spec, query, path, targets)
        assert path is not None, "a teacher is known by its artifact, its targets, or both"
        own = context.spec
        teacher, metadata = open_teacher(context, path, spec, own.apt_teacher)
        context.fingerprints["teacher"] = metadata["sha256"]
        learner = teacher.learner
        classes = context.stream.classes(context.task)
        blocks = own.distiller.facts.blocks(context.backbones[own.backbone].depth)
        same = spec.query == own.query and own.method.facts.needs_query

        def output(batch: Batch, own_query: Tensor | None) -> TeacherOutput:
            theirs = own_query if same else query(batch)
            read = theirs if learner.needs_query else None
            return teacher(batch.images, read, context.task, classes, blocks)

        shape = BackboneShape(learner.backbone.width, learner.backbone.depth)
        prompts = learner.prompts.state_dict()
        return cls(shape, metadata["widths"]["query"], prompts, output, learner)

    @classmethod
    def _cached(
        cls,
        context: TaskContext[LearnerSpec],
        spec: LearnerSpec,
        query: Query,
        path: str | None,
        targets: str,
    ) -> "TeacherSource":
        prompts: dict[str, Tensor] = {}
        expected = {}
        if path is not None:
            state, metadata = context.checkpoint(path, spec, context.task)
            expected = {"teacher": metadata["sha256"]}
            prompts = {
                name.removeprefix("prompts."): tensor
                for name, tensor in state.items()
                if name.startswith("prompts.")
            }
        cache = context.cached(targets, context.spec.targets(spec))
        check_provenance(targets, cache.inputs, expected)
        context.fingerprints["teacher"] = cache.inputs["teacher"]
        maps = context.spec.distiller.facts.maps_prompts
        return cls(
            BackboneShape(**cache.metadata["teacher_shape"]),
            cache.metadata["widths"]["query"],
            prompts,
            lambda batch, _: TeacherOutput(cache(batch), query(batch) if maps else None),
        )
