"""A frozen teacher."""

import torch
from torch import Tensor

from cdl.distillers.base import TeacherOutput
from cdl.models.learner import Learner


class Teacher:
    """A frozen learner in eval mode that returns a `TeacherOutput`."""

    def __init__(self, learner: Learner) -> None:
        """Freeze a learner, which has learnt the task that is distilled."""
        self.learner = learner.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(
        self,
        views: Tensor,
        query: Tensor | None,
        task: int,
        classes: slice,
        keep_blocks: int = 0,
    ) -> TeacherOutput:
        """Return the teacher's output for a batch.

        Args:
            views: views of a batch.
            query: query of the teacher's prompts `[B, Dq]`; None if they need none.
            task: the task that is distilled, counted from 0.
            classes: columns of the task, or of all classes seen; only these logits are returned.
            keep_blocks: how many of the last blocks the output holds.
        """
        inputs = self.learner.backbone.prepare(views)
        output = self.learner(inputs, query, task, keep_blocks=keep_blocks)
        return TeacherOutput(output.logits[:, classes], query, output.blocks)
