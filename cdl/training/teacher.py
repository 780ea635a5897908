"""The teacher of a student's job: its outputs, computed or read from a cache."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from cdl.backbones.shape import BackboneShape
from cdl.data.batches import Batch
from cdl.distillers.base import TeacherOutput
from cdl.models.build import build_learner
from cdl.models.learner import Learner
from cdl.models.teacher import Teacher
from cdl.runtime.artifacts import check_provenance
from cdl.spec import Answers, AnySpec, CacheSpec, LearnerSpec
from cdl.training.context import Query, TaskContext


def open_teacher(
    context: TaskContext[AnySpec],
    path: str,
    spec: LearnerSpec,
    apt_teacher: str | None,
) -> tuple[Teacher, dict[str, Any]]:
    """Load the teacher after a context's task.

    Args:
        context: context with the teacher's backbone.
        path: artifact of the teacher.
        spec: specification of the teacher.
        apt_teacher: `previous` reverts APT's last merge, see `cdl.methods.apt`.

    Returns:
        The teacher and the metadata of its artifact.

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
    """Access of a student's job to its teacher.

    shape: shape of the teacher's backbone.
    query_width: width of the query of the teacher's prompts.
    prompts: state of the teacher's prompts, empty if no distiller maps them.
    output: function of a batch and the student's query, or None, that returns the teacher's output.
    learner: the teacher itself, None if its outputs are read from a cache.
    right: see `cdl.training.answered.right_answers`; empty for a teacher that cdl trains.
    """

    shape: BackboneShape
    query_width: int
    prompts: Mapping[str, Tensor]
    output: Callable[[Batch, Tensor | None], TeacherOutput]
    learner: Learner | None = None
    right: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        context: TaskContext[LearnerSpec],
        spec: LearnerSpec | Answers,
        teacher_query: Query,
        *,
        path: str | None,
        targets: str | None,
        columns: str = "task",
    ) -> "TeacherSource":
        """Open the files of a teacher: its artifact, the cache of its logits, or both.

        Args:
            context: context of the student's task; the teacher's fingerprint is added to it.
            spec: specification of the teacher after the task, or its answers.
            teacher_query: source of the query of the teacher's prompts.
            path: the teacher's artifact of the task, or None.
            targets: the cache of its logits, or None.
            columns: logits of the classes of the `task`, or of all `seen` so far.

        Raises:
            CdlError: a file is damaged, or the files do not belong to the same teacher.
        """
        if targets is not None:
            expected = context.spec.targets(spec, columns)
            return cls._cached(context, spec, teacher_query, path, targets, expected)
        assert path is not None, "a teacher needs an artifact, targets, or both"
        assert isinstance(spec, LearnerSpec), "answers are targets"
        own = context.spec
        teacher, metadata = open_teacher(context, path, spec, own.apt_teacher)
        context.fingerprints["teacher"] = metadata["sha256"]
        learner = teacher.learner
        classes = context.stream.columns(context.task, columns)
        blocks = own.distiller.facts.blocks(context.backbones[own.backbone].depth)

        def output(batch: Batch, own_query: Tensor | None) -> TeacherOutput:
            query = own_query if spec.query == own.query else None
            if query is None and learner.needs_query:
                query = teacher_query(batch)
            return teacher(batch.views, query, context.task, classes, blocks)

        shape = BackboneShape(learner.backbone.width, learner.backbone.depth)
        prompts = learner.prompts.state_dict()
        return cls(shape, metadata["widths"]["query"], prompts, output, learner)

    @classmethod
    def _cached(
        cls,
        context: TaskContext[LearnerSpec],
        spec: LearnerSpec | Answers,
        teacher_query: Query,
        path: str | None,
        targets: str,
        targets_spec: CacheSpec,
    ) -> "TeacherSource":
        """Open the cache of a teacher's logits and, if a distiller maps them, its prompts."""
        prompts: dict[str, Tensor] = {}
        expected = {}
        if path is not None and isinstance(spec, LearnerSpec):
            state, metadata = context.checkpoint(path, spec, context.task)
            expected = {"teacher": metadata["sha256"]}
            prompts = {
                name.removeprefix("prompts."): tensor
                for name, tensor in state.items()
                if name.startswith("prompts.")
            }
        cache = context.cached(targets, targets_spec)
        check_provenance(targets, cache.inputs, expected)
        context.fingerprints["teacher"] = cache.inputs["teacher"]
        maps = context.spec.distiller.facts.maps_prompts
        return cls(
            BackboneShape(**cache.metadata["teacher_shape"]),
            cache.metadata["widths"]["query"],
            prompts,
            lambda batch, _: TeacherOutput(cache(batch), teacher_query(batch) if maps else None),
            right=right_in(cache.metadata),
        )


def right_in(metadata: Mapping[str, Any]) -> dict[str, int]:
    """Return the right answers in the record of a cache, see `TeacherSource`."""
    tested: Mapping[str, Any] = metadata.get("test", {})
    return {name: n for name, n in tested.items() if name.startswith("teacher_answers")}
