"""Features of a task's training images at the test view, without gradients."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cdl.data.cached import CachedOutputs
from cdl.distillers.base import Output
from cdl.models.learner import Learner
from cdl.spec import LearnerSpec
from cdl.training.context import Query, TaskContext
from cdl.training.targets import over_task_images
from cdl.training.teacher import TeacherSource

TestQuery = Callable[[Tensor, Tensor], Tensor]  # of views `[B, 3, H, W]` and positions


def query_of(
    context: TaskContext[LearnerSpec], name: str, cached: CachedOutputs | None = None
) -> TestQuery:
    """Return the source of a backbone's queries at the test view: their cache or the backbone."""
    if cached is not None:
        return lambda _, positions: cached.at(0, positions)
    backbone = context.backbones[name]
    return lambda views, _: backbone.query(backbone.prepare(views))


@dataclass(frozen=True)
class Features:
    """Final tokens of a task's training images.

    tokens: `[n, D]` by the token's position (0: pooled feature, -1: KD token).
    labels: `[n]` positions in the class order, `UNLABELLED` for images without a label.
    """

    tokens: dict[int, Tensor]
    labels: Tensor


@torch.no_grad()
def read_features(
    context: TaskContext[LearnerSpec],
    learner: Learner,
    positions: Tensor,
    tokens: Sequence[int] = (0,),
    task: int | None = None,
    *,
    query: TestQuery | None = None,
    teacher_query: TestQuery | None = None,
) -> Features:
    """Return the final tokens of training images at the test view, in eval mode.

    Args:
        context: context of the task.
        learner: the learner after its last step of the task.
        positions: `[n]` positions of the images in the task.
        tokens: positions of the tokens to return.
        task: task that the learner has learnt last; None: that of the context.
        query: source of the query of its prompts; None if they do not depend on a query.
        teacher_query: source of the teacher's query, if the distiller maps the teacher's prompts.
    """
    learner.eval()
    task = context.task if task is None else task

    def values(source: TestQuery | None, images: Tensor, rows: Tensor) -> Tensor | None:
        return None if source is None else source(images, rows)

    def final_tokens(images: Tensor, rows: Tensor) -> Tensor:
        own = values(query, images, rows)
        same = teacher_query is query
        output: Output = learner(
            learner.backbone.prepare(images),
            own,
            task,
            teacher_query=own if same else values(teacher_query, images, rows),
        )
        return output.tokens[:, list(tokens)]

    found = over_task_images(context, final_tokens, positions)
    tokens_of = {token: found[:, i] for i, token in enumerate(tokens)}
    return Features(tokens_of, context.labels[positions].to(context.compute.device))


@torch.no_grad()
def teacher_probabilities(
    context: TaskContext[LearnerSpec],
    teacher: TeacherSource,
    query: Query,
    softened: Callable[[Tensor], Tensor],
    columns: str = "task",
) -> Tensor:
    """Return a teacher's probabilities for all images of a task, `[n, C]`.

    They are the mean over the image's views in all epochs.

    Args:
        context: context of the task.
        teacher: teacher of the learner.
        query: source of the query of the learner's prompts.
        softened: function from logits `[B, C]` to probabilities.
        columns: as in `TeacherSource.open`.
    """
    epochs, batches = context.spec.training.epochs, context.batches()
    width = len(context.stream.order[context.stream.columns(context.task, columns)])
    means = torch.zeros(len(batches.indices), width, device=context.compute.device)
    for epoch in range(epochs):
        for batch in batches.all_images(epoch):
            logits = teacher.output(batch, query(batch)).logits
            means[batch.positions] += softened(logits) / epochs
    return means
