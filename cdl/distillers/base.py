"""Interface of distillers: injection into the student, losses and predictions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cdl.backbones.shape import BackboneShape
from cdl.backbones.vit import Injection
from cdl.methods.base import PromptMethod, Prompts
from cdl.runtime.given import Given


@dataclass(frozen=True)
class DistillerContext(Given):
    """Arguments that every distiller is built with.

    student: shape of the student's backbone.
    teacher: shape of the teacher's backbone; None without a teacher.
    teacher_prompts: prompt method of the teacher, if the distiller maps it; else None.
    n_tasks: as in `cdl.methods.base.PromptContext`.
    head: function of a generator that returns another head of the same class as the student's.
    generator: random generator of the initial values.
    """

    student: BackboneShape
    teacher: BackboneShape | None
    teacher_prompts: PromptMethod | None
    n_tasks: int | None
    head: Callable[[torch.Generator], nn.Module]
    generator: torch.Generator


@dataclass(frozen=True)
class Output(Given):
    """Output of a learner's forward pass.

    logits: `[B, C]` over all classes, of the class head.
    tokens: `[B, 1 or 2, D]`, the inputs of the heads: first the backbone's pooled feature (the
        class token of a plain ViT), last the KD token if there is one.
    blocks: outputs `[B, N, D]` of the last blocks before the final norm, as many as requested.
    prompt_losses: prompt loss of each layer, a scalar.
    margin: number that cross-entropy subtracts from the logit of the label.
    """

    logits: Tensor
    tokens: Tensor
    blocks: tuple[Tensor, ...]
    prompt_losses: dict[int, Tensor]
    margin: float = 0.0


@dataclass(frozen=True)
class TeacherOutput(Given):
    """Output of the frozen teacher for a batch.

    logits: `[B, C_t]`, of the classes that the distiller compares, those of the current task or all
        seen so far; NaN for images without an answer, see `cdl.spec.Answers`.
    query: query of the teacher's prompts `[B, Dq]`, or None.
    blocks: as in `Output`, empty unless the distiller compares them.
    past: `[B, C']`, logits of the student itself after the previous task, of the classes of earlier
        tasks; None unless the distiller has the fact `reads_past`, and in task 0.
    """

    logits: Tensor
    query: Tensor | None
    blocks: tuple[Tensor, ...] = ()
    past: Tensor | None = None


class LabelOptions(TypedDict, total=False):
    """Options that all built-in distillers share, see `Distiller`."""

    label_columns: str


class Distiller(nn.Module):
    """The objective of a student. The base class has no teacher: cross-entropy only.

    Attributes:
        alpha: weight of the soft loss by default; cross-entropy has the weight `1 - alpha`.
        label_columns: `task`, as in the papers, or `seen`: the classes that cross-entropy compares
            are those of the current task, or all seen so far.
    """

    alpha = 0.0

    def __init__(
        self, context: DistillerContext | None = None, *, label_columns: str = "task"
    ) -> None:
        """Set the columns of cross-entropy; the context is not used."""
        super().__init__()
        self.label_columns = label_columns

    def start_task(self, task: int, generator: torch.Generator) -> None:
        """Prepare for a task; called once before its first step."""

    def read_teacher(self, prompts: Mapping[str, Tensor]) -> None:
        """Load the state of the teacher's prompts for the next task, if it is needed."""

    def inject(self, prompts: Prompts, teacher_query: Tensor | None, task: int) -> Injection:
        """Return the injection of prompts and distiller into the student's attention."""
        return Injection(prompts.prefixes, {}, prompts.additions)

    def forward(
        self, output: Output, teacher_output: TeacherOutput | None, labels: Tensor, classes: slice
    ) -> dict[str, Tensor]:
        """Return named losses; their sum is the objective.

        Args:
            output: the student's output.
            teacher_output: the teacher's output; None without a teacher.
            labels: `[L]` positions in the class order, of the first `L` images of the batch; the
                other images are unlabelled.
            classes: columns of the current task.
        """
        known = output.logits[: len(labels)]
        columns = slice(0, classes.stop) if self.label_columns == "seen" else classes
        loss = local_cross_entropy(known, labels, columns, output.margin)
        return {"ce": (1 - self.alpha) * loss}

    def heads(self) -> dict[str, tuple[nn.Module, int]]:
        """Return the distiller's heads for prediction and the positions of their tokens."""
        return {}

    def predict(self, output: Output) -> Tensor:
        """Return logits `[B, C]` for prediction."""
        return output.logits


def local_cross_entropy(
    logits: Tensor, labels: Tensor, classes: slice, margin: float = 0.0
) -> Tensor:
    """Return the cross-entropy of logits `[B, C]` over some columns, batch mean.

    `margin` is subtracted from the logit of the label.
    """
    own, targets = logits[:, classes], labels - classes.start
    if not len(labels):  # of a student that learns from its teacher's answers alone
        return own.sum()  # 0, with a gradient
    if margin:
        own = own - margin * F.one_hot(targets, own.shape[1])
    return F.cross_entropy(own, targets)
