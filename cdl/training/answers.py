"""A teacher that labels a task's images, at its training views or at its test views."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from cdl.data.cached import CachedOutputs
from cdl.models.learner import Learner
from cdl.models.operations import of_learner, of_query
from cdl.models.teacher import Teacher
from cdl.spec import Answers, Labelling, LearnerSpec
from cdl.training.context import Query, TaskContext, no_query
from cdl.training.features import TestQuery, query_of, teacher_probabilities
from cdl.training.targets import over_task_images
from cdl.training.teacher import TeacherSource, open_teacher, right_in

Context = TaskContext[LearnerSpec]


@dataclass(frozen=True)
class TeacherAnswers:
    """A teacher that classifies the task's images.

    classify: function that returns its logits or probabilities `[n, C]` for the task's images, of
        the columns of `Labelling`.
    views: number of views that it classifies.
    learner: the teacher itself; None if its outputs are read from a cache.
    operations: operations for one view; 0 if its outputs are read from a cache.
    right: as in `cdl.training.teacher.TeacherSource`.
    """

    classify: Callable[[], Tensor]
    views: int
    learner: Learner | None = None
    operations: float = 0.0
    right: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        context: Context,
        spec: LearnerSpec | Answers,
        *,
        path: str | None,
        targets: str | None,
    ) -> "TeacherAnswers":
        """Open a teacher, and add it to the fingerprints of the context.

        Args:
            context: context of the task of a learner with a `labelling`.
            spec: specification of the teacher, or its answers.
            path: the teacher's artifact of the same task, unless `targets` is sufficient.
            targets: cache of its logits, at the view that `Alignment.answers` names.
        """
        how = context.spec.labelling
        assert how is not None, "only learners with a head in closed form"
        if how.answers == "test":
            if targets is None:
                assert isinstance(spec, LearnerSpec), "answers are targets"
                return cls._at_test_view(context, spec, how, path)
            cache = context.cached(targets, context.spec.targets(spec, how.columns, "held_out"))
            context.fingerprints["teacher"] = cache.inputs["teacher"]
            right = right_in(cache.metadata)
            return cls(partial(_read, context, cache), cache.values.shape[1], right=right)
        teacher_query: Query = no_query
        if targets is None:
            _, teacher_query = context.query(spec.query, None)
        files = {"path": path, "targets": targets}
        source = TeacherSource.open(context, spec, teacher_query, **files, columns=how.columns)
        softmax = partial(torch.softmax, dim=1)
        read = partial(teacher_probabilities, context, source, no_query, softmax, how.columns)
        views = sum(map(len, context.indices(context.task))) * context.spec.training.epochs
        if source.learner is None:
            return cls(read, views, right=source.right)
        width = source.query_width
        operations = of_teacher(context, source.learner, spec.query, width, cached=False)
        return cls(read, views, source.learner, operations)

    @classmethod
    def _at_test_view(
        cls, context: Context, spec: LearnerSpec, how: Labelling, path: str | None
    ) -> "TeacherAnswers":
        """Compute the answers at the test view."""
        assert path is not None, "planned with the teacher's artifact or its targets"
        teacher, metadata = open_teacher(context, path, spec, context.spec.apt_teacher)
        context.fingerprints["teacher"] = metadata["sha256"]
        query = query_of(context, spec.query) if teacher.learner.needs_query else None
        width = metadata["widths"]["query"]
        operations = of_teacher(context, teacher.learner, spec.query, width, cached=False)
        logits = partial(_logits, context, teacher, query, how.columns)
        views = len(context.indices(context.task)[0])
        return cls(logits, views, teacher.learner, operations)

    def work(self) -> tuple[float, int]:
        """Return its operations, and the number of outputs that are read from a cache."""
        return self.operations * self.views, self.views if self.learner is None else 0


def of_teacher(context: Context, teacher: Learner, query: str, width: int, cached: bool) -> float:
    """Return the operations of a teacher for one view, with its query unless that is cached."""
    operations, _ = of_learner(teacher, context.task, {"query": width})
    computed = teacher.needs_query and not cached
    return operations + (of_query(context.backbones[query]) if computed else 0.0)


def _read(context: Context, cache: CachedOutputs) -> Tensor:
    """Return a teacher's logits `[n, C]` for the task's images from their cache."""
    return cache.at(0, torch.arange(cache.values.shape[1], device=context.compute.device))


def _logits(context: Context, teacher: Teacher, query: TestQuery | None, columns: str) -> Tensor:
    """Return a teacher's logits `[n, C]` for the test views of the task's images."""
    classes = context.stream.columns(context.task, columns)
    own = len(context.indices(context.task)[0])

    def logits(images: Tensor, rows: Tensor) -> Tensor:
        given = None if query is None else query(images, rows)
        output: Tensor = teacher(images, given, context.task, classes).logits
        return output

    return over_task_images(context, logits, torch.arange(own))
