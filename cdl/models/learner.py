"""A learner: a frozen backbone with prompts, head and distiller."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from cdl.backbones.frozen import Backbone
from cdl.backbones.shape import BackboneShape
from cdl.backbones.vit import BlockInputs, Injection
from cdl.distillers.base import Distiller, Output, TeacherOutput
from cdl.methods.base import PromptMethod, Prompts
from cdl.methods.heads import Head
from cdl.models.returned import injection_of, losses_of, prompts_of
from cdl.runtime.seeds import generator

MEMORY = "memory."  # prefix of tensors in an artifact that only later tasks use
_AUXILIARY = {"prompt", "feature"}  # losses that the released scripts sum over GPUs


def memory_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of an artifact that only later tasks use, without their prefix."""
    return {k.removeprefix(MEMORY): t for k, t in state.items() if k.startswith(MEMORY)}


def name_of(module: nn.Module, learner: nn.Module) -> str:
    """Return the name of a module in a learner, the prefix of its tensors."""
    names: dict[int, str] = {id(found): name for name, found in learner.named_modules()}
    return names[id(module)]


class Learner(nn.Module):
    """A teacher or a student; they differ only in the distiller."""

    def __init__(
        self,
        backbone: Backbone,
        prompts: PromptMethod,
        head: nn.Module,
        distiller: Distiller,
        *,
        needs_query: bool = True,
        compared_blocks: int = 0,
        auxiliary_weight: float = 1.0,
    ) -> None:
        """Assemble a learner; only the backbone is frozen.

        Args:
            backbone: the frozen backbone.
            prompts: prompt method for the backbone.
            head: tokens `[B, D]` to logits `[B, C]`.
            distiller: the objective.
            needs_query: whether the prompts depend on the query.
            compared_blocks: number of last blocks that the distiller compares.
            auxiliary_weight: factor of the prompt and feature losses.
        """
        super().__init__()
        self.backbone, self.prompts, self.head = backbone, prompts, head
        self.distiller, self.auxiliary_weight = distiller, auxiliary_weight
        self.needs_query, self.compared_blocks = needs_query, compared_blocks

    def forward(
        self,
        inputs: Tensor,
        query: Tensor | None,
        task: int,
        teacher_query: Tensor | None = None,
        keep_blocks: int = 0,
        resume_from: BlockInputs | None = None,
    ) -> Output:
        """Run the backbone with prompts and the class head on a batch.

        Args:
            inputs: what the backbone's `prepare` returns for the views of a batch.
            query: `[B, Dq]`; None if the prompts do not depend on a query.
            task: the current task in training, the latest task at test.
            teacher_query: `[B, Dq']`, for distillers that map the teacher's prompts.
            keep_blocks: number of last blocks in the output.
            resume_from: block inputs of the backbone's pass of these inputs without prompts.
        """
        prompts, injections = self.inject(query, task, teacher_query)
        passes = [
            self.backbone.encode(inputs, injection, keep_blocks, resume_from)
            for injection in injections
        ]
        features = [encoded.features for encoded in passes]
        tokens = torch.cat(features, dim=-1) if len(passes) > 1 else features[0]
        return self.read(tokens, passes[-1].blocks, prompts.losses)

    def inject(
        self, query: Tensor | None, task: int, teacher_query: Tensor | None = None
    ) -> tuple[Prompts, list[Injection]]:
        """Return the prompts of a batch, and the injection of each pass of the backbone."""
        shape = BackboneShape(self.backbone.width, self.backbone.depth)
        prompts = prompts_of(self.prompts(query, task), self.prompts, shape)
        found = self.distiller.inject(prompts, teacher_query, task)
        injection = injection_of(found, self.distiller)
        if not prompts.inside:
            return prompts, [injection]
        return prompts, [replace(injection, inside=inside) for inside in prompts.inside]

    def read(
        self,
        tokens: Tensor,
        blocks: tuple[Tensor, ...] = (),
        prompt_losses: dict[int, Tensor] | None = None,
    ) -> Output:
        """Return the output for final tokens `[B, 1 or 2, D]`, see `Output`."""
        logits, margin = self.head(tokens[:, 0]), getattr(self.head, "margin", 0.0)
        return Output(logits, tokens, blocks, prompt_losses or {}, margin)

    def losses(
        self, output: Output, teacher_output: TeacherOutput | None, labels: Tensor, classes: slice
    ) -> dict[str, Tensor]:
        """Return the named, weighted losses; their sum is the objective."""
        found = self.distiller(output, teacher_output, labels, classes)
        losses = losses_of(found, self.distiller)
        losses["prompt"] = sum(output.prompt_losses.values(), output.logits.new_zeros(()))
        for name in _AUXILIARY & set(losses):
            losses[name] = self.auxiliary_weight * losses[name]
        return losses

    def predict(self, output: Output, seen: int) -> Tensor:
        """Return logits `[B, seen]` over the classes seen so far."""
        return self.distiller.predict(output)[:, :seen]

    def heads(self) -> dict[str, tuple[nn.Module, int]]:
        """Return the heads for prediction by name, each with its token's position."""
        return {"head": (self.head, 0), **self.distiller.heads()}

    def start_task(self, task: int, n_classes: int, *keys: str | int) -> None:
        """Add the columns and prompts of a task with `n_classes` new classes.

        The new columns of every head are drawn with `keys` and the task as the random seed.
        """
        if n_classes:
            for name, module in self.named_modules():
                if isinstance(module, Head):
                    module.grow(n_classes, generator(*keys, name, task))
        self.prompts.start_task(task, generator(*keys, "prompts", task))
        self.distiller.start_task(task, generator(*keys, "distiller", task))

    def end_task(self, task: int) -> None:
        """Finish a task after its last step."""
        self.prompts.end_task(task)

    def learnables(self) -> list[nn.Parameter]:
        """Return the trainable parameters."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def state(self) -> dict[str, Tensor]:
        """Return all tensors by name, without those of the backbone."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith("backbone.")}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Load a result of `state`; raise `RuntimeError` if a name or shape differs.

        Modules that grow with the tasks are resized to the loaded state. Tensors with the prefix
        `MEMORY`, which only later tasks use, are ignored.
        """
        frozen = {k: v for k, v in self.state_dict().items() if k.startswith("backbone.")}
        own = {k: v for k, v in state.items() if not k.startswith(MEMORY)}
        self.load_state_dict({**frozen, **own})
