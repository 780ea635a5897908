"""The student after the previous task, whose outputs some distillers compare."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from cdl.data.batches import Batch
from cdl.distillers.base import TeacherOutput
from cdl.models.learner import Learner

Targets = Callable[[Batch, Tensor | None], TeacherOutput]


def frozen_copy(learner: Learner, state: Mapping[str, Tensor]) -> Learner:
    """Load a state into a learner and freeze it."""
    learner.load_state(state)
    return learner.eval().requires_grad_(False)


def with_past(teacher: Targets | None, past: Learner, task: int, known: int) -> Targets:
    """Return the targets of a teacher together with the logits of the student's past.

    Args:
        teacher: the teacher's output of a batch and its query; None without a teacher.
        past: the student after the previous task, frozen.
        task: the current task, counted from 0.
        known: number of classes of earlier tasks.
    """

    @torch.no_grad()
    def targets(batch: Batch, query: Tensor | None) -> TeacherOutput:
        given = TeacherOutput(batch.views.new_zeros(len(batch.views), 0), None)
        if teacher is not None:
            given = teacher(batch, query)
        output = past(past.backbone.prepare(batch.views), query, task - 1)
        return replace(given, past=past.predict(output, known))

    return targets
