"""What every distiller is: additions to the student's forward, named losses, and a prediction."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cdl.backbones.shape import BackboneShape
from cdl.backbones.vit import Injection
from cdl.methods.base import PromptMethod, Prompts


@dataclass(frozen=True)
class DistillerContext:
    """What a distiller may know about the two models when it is built.

    teacher and teacher_prompts are None for learners without a teacher; `head(generator)` makes
    another classification head of the student's kind; `n_tasks` is as in `PromptContext`.
    """

    student: BackboneShape
    teacher: BackboneShape | None
    teacher_prompts: PromptMethod | None
    n_tasks: int | None
    head: Callable[[torch.Generator], nn.Module]
    generator: torch.Generator


@dataclass(frozen=True)
class Output:
    """A learner's forward.

    logits: `[B, C]` over all classes, of the class head.
    tokens: `[B, 1 or 2, D]`, what heads read: the backbone's pooled feature (of a plain ViT its
        class token) first, the KD token, if there is one, last.
    blocks: outputs `[B, N, D]` of the last blocks before the final norm, as many as are read.
    prompt_losses: by layer, scalars.
    """

    logits: Tensor
    tokens: Tensor
    blocks: tuple[Tensor, ...]
    prompt_losses: dict[int, Tensor]


@dataclass(frozen=True)
class TeacherOutput:
    """What the frozen teacher says about a batch.

    logits: `[B, C_t]`, current task's classes.
    query: `[B, Dq]`, what the teacher's prompts read, or None.
    blocks: as in `Output`, empty unless a distiller reads them.
    """

    logits: Tensor
    query: Tensor | None
    blocks: tuple[Tensor, ...] = ()


class Distiller(nn.Module):
    """A student's objective. This base has no teacher: cross-entropy on the current classes.

    Attributes:
        alpha: share of the soft loss; cross-entropy has the rest.
    """

    alpha = 0.0

    def start_task(self, task: int, generator: torch.Generator) -> None:
        """Prepare for a task; called once before its first step."""

    def read_teacher(self, prompts: Mapping[str, Tensor]) -> None:
        """Take what is needed of the state of the teacher's prompts for the task about to start."""

    def inject(self, prompts: Prompts, teacher_query: Tensor | None, task: int) -> Injection:
        """Return what enters the student's attention: its prompts and the distiller's own."""
        return Injection(prompts.prefixes, {}, prompts.additions)

    def forward(
        self, output: Output, teacher_output: TeacherOutput | None, labels: Tensor, classes: slice
    ) -> dict[str, Tensor]:
        """Return named losses; their sum is the objective.

        Args:
            output: the student's forward.
            teacher_output: the teacher's, None without one.
            labels: `[L]` positions in the class order, of the first `L` images of the batch; the
                others have no label.
            classes: columns of the current task.
        """
        known = output.logits[: len(labels)]
        return {"ce": (1 - self.alpha) * local_cross_entropy(known, labels, classes)}

    def heads(self) -> dict[str, tuple[nn.Module, int]]:
        """Return the distiller's own heads that predict, by name, with the token they read."""
        return {}

    def predict(self, output: Output) -> Tensor:
        """Return logits `[B, C]` for prediction."""
        return output.logits


def local_cross_entropy(logits: Tensor, labels: Tensor, classes: slice) -> Tensor:
    """Cross-entropy over the current task's columns only, batch mean (logits `[B, C]`)."""
    return F.cross_entropy(logits[:, classes], labels - classes.start)
