"""The classes that a task's images count for in class statistics, see `Alignment.labels`.

Images with a label count for it. The others count for the class that a teacher, the learner itself
or the nearest class mean assigns, or are left out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from cdl.data.cached import CachedOutputs
from cdl.data.labels import UNLABELLED, learnt_from
from cdl.models.learner import Learner
from cdl.models.operations import of_learner, of_query
from cdl.models.teacher import Teacher
from cdl.spec import Alignment, LearnerSpec
from cdl.training.context import Query, TaskContext, no_query
from cdl.training.features import Features, TestQuery, query_of, teacher_probabilities
from cdl.training.targets import over_task_images
from cdl.training.teacher import TeacherSource, open_teacher

Context = TaskContext[LearnerSpec]


@dataclass(frozen=True)
class TeacherAnswers:
    """A teacher that classifies the task's images.

    classify: function that returns its logits or probabilities `[n, C_t]` for the task's images.
    learner: the teacher itself; None if its outputs are read from a cache.
    operations: operations for one view; 0 if its outputs are read from a cache.
    """

    classify: Callable[[], Tensor]
    learner: Learner | None = None
    operations: float = 0.0

    @classmethod
    def open(
        cls,
        context: Context,
        spec: LearnerSpec,
        *,
        path: str | None,
        queries: str | None,
        targets: str | None,
    ) -> "TeacherAnswers":
        """Open a teacher, and add it to the fingerprints of the context.

        Args:
            context: context of the task of a learner with an alignment.
            spec: specification of the teacher.
            path: the teacher's artifact of the same task, unless `targets` is sufficient.
            queries: cache of the queries of its prompts at the training views.
            targets: cache of its logits, at the view that `Alignment.answers` names.
        """
        alignment = context.spec.alignment
        assert alignment is not None, "only learners with an alignment"
        if alignment.answers == "test":
            if targets is None:
                return cls._at_test_view(context, spec, path)
            cache = context.cached(targets, context.spec.targets(spec, views="held_out"))
            context.fingerprints["teacher"] = cache.inputs["teacher"]
            return cls(partial(_read, context, cache))
        teacher_query: Query = no_query
        if targets is None:
            _, teacher_query = context.query(spec.query, queries)
        source = TeacherSource.open(context, spec, teacher_query, path=path, targets=targets)
        softmax = partial(torch.softmax, dim=1)
        classify = partial(teacher_probabilities, context, source, no_query, softmax)
        if source.learner is None:
            return cls(classify)
        width, cached = source.query_width, queries is not None
        operations = _operations(context, source.learner, spec.query, width, cached)
        return cls(classify, source.learner, operations)

    @classmethod
    def _at_test_view(
        cls, context: Context, spec: LearnerSpec, path: str | None
    ) -> "TeacherAnswers":
        """Compute the answers at the test view."""
        assert path is not None, "planned with the teacher's artifact or its targets"
        teacher, metadata = open_teacher(context, path, spec, context.spec.apt_teacher)
        context.fingerprints["teacher"] = metadata["sha256"]
        query = query_of(context, spec.query) if teacher.learner.needs_query else None
        width = metadata["widths"]["query"]
        operations = _operations(context, teacher.learner, spec.query, width, cached=False)
        return cls(partial(_logits, context, teacher, query), teacher.learner, operations)


def _operations(context: Context, teacher: Learner, query: str, width: int, cached: bool) -> float:
    """Return the operations of a teacher for one view, with its query unless that is cached."""
    operations, _ = of_learner(teacher, context.task, {"query": width})
    computed = teacher.needs_query and not cached
    return operations + (of_query(context.backbones[query]) if computed else 0.0)


def _read(context: Context, cache: CachedOutputs) -> Tensor:
    """Return a teacher's logits `[n, C_t]` for the task's images from their cache."""
    return cache.at(0, torch.arange(cache.values.shape[1], device=context.compute.device))


def _logits(context: Context, teacher: Teacher, query: TestQuery | None) -> Tensor:
    """Return a teacher's logits `[n, C_t]` for the test views of the task's images."""
    classes, own = context.stream.classes(context.task), len(context.indices(context.task)[0])

    def logits(images: Tensor, rows: Tensor) -> Tensor:
        given = None if query is None else query(images, rows)
        output: Tensor = teacher(images, given, context.task, classes).logits
        return output

    return over_task_images(context, logits, torch.arange(own))


def images_counted(context: Context, how: Alignment, *, taught: bool) -> Tensor:
    """Return the positions `[n]` of the task's images that have a label or get one.

    Images of `unlabelled`, which may be of any class, are never among them.

    Args:
        context: context of the task.
        how: options of the alignment.
        taught: whether a teacher labels images.
    """
    own = len(context.indices(context.task)[0])
    return learnt_from(context.labels[:own], taught=taught or how.labels in ("self", "nearest"))


def labels_of(
    context: Context,
    how: Alignment,
    features: Features,
    positions: Tensor,
    learner: Learner,
    teacher: TeacherAnswers | None,
) -> Tensor:
    """Return the classes `[n]` that images count for, as positions in the class order.

    Args:
        context: context of the task.
        how: options of the alignment.
        features: of the images.
        positions: of the images in the task, from `images_counted`.
        learner: the trained learner.
        teacher: the teacher that labels images; None without one.
    """
    labels, known = features.labels, features.labels != UNLABELLED
    classes = context.stream.classes(context.task)
    if known.all():
        return labels
    if teacher is not None:
        answers = teacher.classify()[positions]
        return torch.where(known, labels, answers.argmax(1) + classes.start)
    if how.labels == "nearest":
        return torch.where(known, labels, nearest_mean(features.tokens[0], labels, known))
    tokens = torch.stack([features.tokens[t] for t in sorted(features.tokens, reverse=True)], 1)
    with torch.no_grad():
        logits = learner.predict(learner.read(tokens), classes.stop)[:, classes]
    return torch.where(known, labels, logits.argmax(1) + classes.start)


def nearest_mean(rows: Tensor, labels: Tensor, known: Tensor) -> Tensor:
    """Return for each row `[n, D]` the class whose labelled rows have the nearest mean, `[n]`.

    Args:
        rows: features `[n, D]`.
        labels: classes `[n]`, of which those of `known` count.
        known: boolean `[n]`; at least one row is known.
    """
    classes = labels[known].unique()
    means = torch.stack([rows[known & (labels == c)].mean(0) for c in classes])
    found: Tensor = classes[torch.cdist(rows, means).argmin(1)]
    return found
