"""A learner: a frozen backbone, its prompts, its head, and what its distiller adds."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cdl.backbones import Backbone
from cdl.distillers import DISTILLERS, Distiller
from cdl.distillers.base import Output, Setting, Shape, Signal
from cdl.prompts import PROMPTS, PromptMethod, PromptSetting
from cdl.seeds import generator

_AUXILIARY = {"prompt", "feature"}  # the parts that n GPUs of the released scripts add n times


class Learner(nn.Module):
    """A teacher or a student; the difference is only in the distiller."""

    def __init__(
        self,
        backbone: Backbone,
        prompts: PromptMethod,
        head: nn.Module,
        distiller: Distiller,
        auxiliary_weight: float = 1.0,
    ) -> None:
        """Put a learner together; only the backbone is frozen.

        Args:
            backbone: the frozen ViT.
            prompts: prompt method of the backbone's width.
            head: tokens `[B, D]` to logits `[B, C]`.
            distiller: the objective.
            auxiliary_weight: factor of prompt and feature losses.
        """
        super().__init__()
        self.backbone, self.prompts, self.head = backbone, prompts, head
        self.distiller, self.auxiliary_weight = distiller, auxiliary_weight

    def forward(
        self,
        images: Tensor,
        query: Tensor | None,
        task: int,
        teacher_query: Tensor | None = None,
        keep_blocks: int = 0,
    ) -> Output:
        """Run images `[B, 3, H, W]` in 0..1 with the prompts that their query selects.

        Args:
            images: a batch of views.
            query: `[B, Dq]`; None if the prompts need none.
            task: the latest task learnt or being learnt.
            teacher_query: `[B, Dq']` for a distiller that maps the teacher's prompts.
            keep_blocks: how many of the last blocks' tokens the output holds.
        """
        prompts = self.prompts(query, task)
        injection = self.distiller.inject(prompts, teacher_query, task)
        encoded = self.backbone.encode(images, injection, keep_blocks)
        logits = self.head(encoded.tokens[:, 0])
        return Output(logits, encoded.tokens, encoded.blocks, prompts.losses)

    def losses(
        self, output: Output, signal: Signal | None, labels: Tensor, classes: slice
    ) -> dict[str, Tensor]:
        """Return the named parts of the objective, ready to be summed."""
        losses = self.distiller(output, signal, labels, classes)
        losses["prompt"] = sum(output.prompt_losses.values(), output.logits.new_zeros(()))
        for name in _AUXILIARY & set(losses):
            losses[name] = self.auxiliary_weight * losses[name]
        return losses

    def predict(self, output: Output, seen: int) -> Tensor:
        """Return logits `[B, seen]` over the classes seen so far."""
        return self.distiller.predict(output)[:, :seen]

    def start_task(self, task: int, *keys: str | int) -> None:
        """Draw what a new task needs; `keys` fix the randomness."""
        self.prompts.start_task(task, generator(*keys, "prompts", task))
        self.distiller.start_task(task, generator(*keys, "distiller", task))

    def end_task(self, task: int) -> None:
        """Finish a task after its last step."""
        self.prompts.end_task(task)

    def learnables(self) -> list[nn.Parameter]:
        """Return the parameters that training changes."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def state(self) -> dict[str, Tensor]:
        """Return all tensors but the backbone's, by name."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith("backbone.")}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Set what `state` returned; raise `RuntimeError` if a name or shape differs."""
        frozen = {k: v for k, v in self.state_dict().items() if k.startswith("backbone.")}
        self.load_state_dict({**frozen, **state})


def build(
    *,
    backbone: Backbone,
    query_width: int,
    method: Mapping[str, Any],
    distiller: Mapping[str, Any],
    n_classes: int,
    n_tasks: int,
    keys: tuple[str | int, ...],
    auxiliary_weight: float = 1.0,
    teacher: Shape | None = None,
    teacher_query_width: int | None = None,
) -> Learner:
    """Build a learner from configuration blocks.

    Args:
        backbone: its frozen ViT.
        query_width: width of the query that its prompts read.
        method: `name` of a prompt method and its arguments.
        distiller: `name` of a distiller and its arguments.
        n_classes: classes of the stream.
        n_tasks: tasks of the stream.
        keys: fix the randomness of the start.
        auxiliary_weight: see `Learner`.
        teacher: shape of the teacher's backbone, None without a teacher.
        teacher_query_width: width of the query that the teacher's prompts read.
    """
    options = dict(method)
    kind = PROMPTS[options.pop("name")]

    def prompts(shape: Shape, width: int, part: str) -> PromptMethod:
        source = generator(*keys, part)
        setting = PromptSetting(shape.width, shape.depth, width, n_tasks, source)
        return kind(setting, **options)

    def head(source: torch.Generator) -> nn.Module:
        return kind.head(backbone.width, n_classes, source)

    student = Shape(backbone.width, backbone.depth)
    own = prompts(student, query_width, "prompts")
    distiller_options = dict(distiller)
    objective = DISTILLERS[distiller_options.pop("name")]
    mapped = objective.maps_prompts
    setting = Setting(
        student=student,
        teacher=teacher,
        teacher_prompts=prompts(teacher, teacher_query_width, "unused") if mapped else None,
        n_tasks=n_tasks,
        head=head,
        generator=generator(*keys, "distiller"),
    )
    return Learner(
        backbone,
        own,
        head(generator(*keys, "head")),
        objective(setting, **distiller_options),
        auxiliary_weight,
    )


class Teacher:
    """A frozen learner in eval mode that answers with a `Signal`."""

    def __init__(self, learner: Learner) -> None:
        """Freeze a learner, the teacher after the task being distilled."""
        self.learner = learner.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(
        self, images: Tensor, query: Tensor | None, task: int, classes: slice, keep_blocks: int
    ) -> Signal:
        """Return logits of the current classes for views `[B, 3, H, W]` and the teacher's query."""
        output = self.learner(images, query, task, keep_blocks=keep_blocks)
        return Signal(output.logits[:, classes], query, output.blocks)
