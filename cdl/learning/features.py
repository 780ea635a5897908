"""What a learner makes of its own training images, seen as at test: final tokens, no gradient."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cdl.backbones.frozen import Backbone
from cdl.data.views import Views
from cdl.learners.factory import TaskContext
from cdl.learners.learner import Learner
from cdl.learning.targets import over_test_images


@dataclass(frozen=True)
class Features:
    """Final tokens of a task's training images.

    tokens: by position among the tokens (0: the pooled feature, -1: the KD token), `[n, D]`.
    labels: `[n]` positions in the class order.
    """

    tokens: dict[int, Tensor]
    labels: Tensor


@torch.no_grad()
def read_features(
    context: TaskContext,
    learner: Learner,
    tokens: Sequence[int] = (0,),
    *,
    query: Backbone | None = None,
    teacher_query: Backbone | None = None,
) -> Features:
    """Run all training images of a task through a learner in eval mode, at the test view.

    Args:
        context: of the task.
        learner: after its last step of the task.
        tokens: positions of the tokens to read.
        query: backbone of its prompts' queries; None if they read none.
        teacher_query: backbone of the queries of a teacher whose prompts it maps.
    """
    learner.eval()
    spec = context.spec
    indices = context.stream.indices(context.train, context.task, spec["images_per_class"])

    def read(images: Tensor, _: Tensor) -> Tensor:
        own, theirs = (None if b is None else b.query(images) for b in (query, teacher_query))
        read: Tensor = learner(images, own, context.task, theirs).tokens[:, list(tokens)]
        return read

    pixels, device = context.train.pixels(indices), context.compute.device
    found = over_test_images(pixels, Views(**spec["view"]), device, read)
    labels = context.stream.labels(context.train)[indices].to(device)
    return Features({token: found[:, i] for i, token in enumerate(tokens)}, labels)
