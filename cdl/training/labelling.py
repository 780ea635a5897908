"""The classes that a task's images count for in heads that are computed in closed form.

These are heads that are aligned with class statistics, ridges and class means; see
`cdl.spec.Labelling`. An image with a label counts for it. The others count for the class that a
teacher, the learner itself or the nearest class mean assigns, or are not used.

The class is one of the task's, or one of all classes seen so far. In the second case an image may
get a class of an earlier task. That is a mistake that the learner cannot notice: its images are of
new classes, but it does not know which of the unlabelled ones. Such an image is left out, since
what earlier tasks have stored does not change.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from cdl.data.labels import UNLABELLED, learnt_from
from cdl.spec import Labelling, LearnerSpec
from cdl.training.answers import TeacherAnswers
from cdl.training.context import TaskContext
from cdl.training.features import Features

Context = TaskContext[LearnerSpec]


def images_counted(context: Context, how: Labelling) -> Tensor:
    """Return the positions `[n]` of the task's images that have a label or get one.

    Images of `unlabelled`, which may be of any class, are never among them.
    """
    own = len(context.indices(context.task)[0])
    return learnt_from(context.labels[:own], taught=how.by != "own")


def labels_of(
    context: Context,
    how: Labelling,
    features: Features,
    positions: Tensor,
    *,
    own: Callable[[], Tensor],
    earlier: Tensor | None,
    teacher: TeacherAnswers | None,
) -> Tensor:
    """Return the classes `[n]` that images count for, as positions in the class order.

    Those below the first class of the task are of images that are left out, such as those without
    an answer.

    Args:
        context: context of the task.
        how: source of the classes.
        features: of the images.
        positions: of the images in the task, from `images_counted`.
        own: returns the learner's logits `[n, seen]` for the images, for `self`.
        earlier: mean features `[C, D]` of at least the classes of earlier tasks, for `nearest`
            among all classes seen; None if there are none.
        teacher: the teacher that labels images, for `teacher`.
    """
    labels, known = features.labels, features.labels != UNLABELLED
    if known.all():
        return labels
    classes = context.stream.classes(context.task)
    columns = context.stream.columns(context.task, how.columns)
    if how.by == "teacher":
        assert teacher is not None, "planned with a teacher"
        scores = teacher.classify()[positions]
    elif how.by == "nearest":
        rows = features.tokens[0]
        means = class_means(rows, labels, classes)
        if earlier is not None:
            means = torch.cat([earlier[columns.start : classes.start].to(means), means])
        scores = nearness(rows, means)
    else:
        scores = own()[:, columns]
    found = torch.where(scores.isnan().any(1), -1, scores.argmax(1) + columns.start)
    return torch.where(known, labels, found)


def class_means(rows: Tensor, labels: Tensor, classes: slice) -> Tensor:
    """Return the mean of the rows `[n, D]` of each class, `[C, D]`; NaN for a class without any."""
    return torch.stack([rows[labels == c].mean(0) for c in range(classes.start, classes.stop)])


def nearness(rows: Tensor, means: Tensor) -> Tensor:
    """Return the negative distances `[n, C]` of rows `[n, D]` and means `[C, D]`; of NaN: -inf."""
    return -torch.cdist(rows, means).nan_to_num(nan=torch.inf)


def assigned(context: Context, positions: Tensor, labels: Tensor) -> dict[str, int]:
    """Return how many images without a label have got a class, and in how many cases the right one.

    An image that is left out has got a wrong one.

    Args:
        context: context of the task.
        positions: of the images in the task, from `images_counted`.
        labels: their classes `[n]`, from `labels_of`.
    """
    unknown = context.labels[positions] == UNLABELLED
    right = (labels.cpu() == context.true_labels[positions])[unknown]
    return {"pseudo_labels": len(right), "pseudo_labels_right": int(right.sum())}
