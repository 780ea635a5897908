"""What a learner makes of its own training images, seen as at test: final tokens, no gradient."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cdl.data.views import Views
from cdl.models.learner import Learner
from cdl.spec import LearnerSpec
from cdl.training.context import Query, TaskContext
from cdl.training.targets import over_test_images
from cdl.training.teacher import TeacherSource

TestQuery = Callable[[Tensor, Tensor], Tensor]  # of test views `[B, 3, H, W]` and their positions


@dataclass(frozen=True)
class Features:
    """Final tokens of training images of a task.

    tokens: by position among the tokens (0: the pooled feature, -1: the KD token), `[n, D]`.
    labels: `[n]` positions in the class order, `UNLABELLED` where the learner knows none.
    """

    tokens: dict[int, Tensor]
    labels: Tensor


@torch.no_grad()
def read_features(
    context: TaskContext[LearnerSpec],
    learner: Learner,
    positions: Tensor,
    tokens: Sequence[int] = (0,),
    *,
    query: TestQuery | None = None,
    teacher_query: TestQuery | None = None,
) -> Features:
    """Run training images of a task through a learner in eval mode, at the test view.

    Args:
        context: of the task.
        learner: after its last step of the task.
        positions: `[n]` of the images among the task's.
        tokens: positions of the tokens to read.
        query: of its prompts; None if they read none.
        teacher_query: of a teacher whose prompts it maps.
    """
    learner.eval()
    spec = context.spec

    def read(images: Tensor, rows: Tensor) -> Tensor:
        own = None if query is None else query(images, rows)
        theirs = own
        if teacher_query is not query:
            theirs = None if teacher_query is None else teacher_query(images, rows)
        read: Tensor = learner(images, own, context.task, theirs).tokens[:, list(tokens)]
        return read

    device = context.compute.device
    found = over_test_images(context.pixels, Views.of(spec.view), device, read, positions)
    tokens_of = {token: found[:, i] for i, token in enumerate(tokens)}
    return Features(tokens_of, context.labels[positions].to(device))


@torch.no_grad()
def teachers_answers(
    context: TaskContext[LearnerSpec],
    teacher: TeacherSource,
    query: Query,
    softened: Callable[[Tensor], Tensor],
) -> Tensor:
    """Return what a teacher says of each image, the mean over its views of all epochs `[n, C_t]`.

    Args:
        context: of the task.
        teacher: of the learner.
        query: of the learner's prompts.
        softened: from logits `[B, C_t]` to probabilities.
    """
    epochs, batches = context.spec.training.epochs, context.batches()
    width = context.stream.width(context.task)
    answers = torch.zeros(len(batches.indices), width, device=context.compute.device)
    for epoch in range(epochs):
        for batch in batches.every(epoch):
            logits = teacher.output(batch, query(batch)).logits
            answers[batch.positions] += softened(logits) / epochs
    return answers
