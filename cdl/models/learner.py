"""A learner: a frozen backbone, its prompts, its head, and what its distiller adds."""

from collections.abc import Mapping

from torch import Tensor, nn

from cdl.backbones.frozen import Backbone
from cdl.backbones.vit import BlockInputs
from cdl.distillers.base import Distiller, Output, TeacherOutput
from cdl.methods.base import PromptMethod
from cdl.methods.heads import Head
from cdl.runtime.seeds import generator

MEMORY = "memory."  # what only later tasks read of an artifact
_AUXILIARY = {"prompt", "feature"}  # the parts that n GPUs of the released scripts add n times


class Learner(nn.Module):
    """A teacher or a student; the difference is only in the distiller."""

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
        """Put a learner together; only the backbone is frozen.

        Args:
            backbone: the frozen ViT.
            prompts: prompt method of the backbone's width.
            head: tokens `[B, D]` to logits `[B, C]`.
            distiller: the objective.
            needs_query: whether the prompts depend on the query.
            compared_blocks: how many of the last blocks the distiller compares.
            auxiliary_weight: factor of prompt and feature losses.
        """
        super().__init__()
        self.backbone, self.prompts, self.head = backbone, prompts, head
        self.distiller, self.auxiliary_weight = distiller, auxiliary_weight
        self.needs_query, self.compared_blocks = needs_query, compared_blocks

    def forward(
        self,
        images: Tensor,
        query: Tensor | None,
        task: int,
        teacher_query: Tensor | None = None,
        keep_blocks: int = 0,
        resume_from: BlockInputs | None = None,
    ) -> Output:
        """Run images `[B, 3, H, W]` in 0..1 with the prompts that their query selects.

        Args:
            images: a batch of views.
            query: `[B, Dq]`; None if the prompts need none.
            task: the latest task learnt or being learnt.
            teacher_query: `[B, Dq']` for a distiller that maps the teacher's prompts.
            keep_blocks: how many of the last blocks' tokens the output holds.
            resume_from: block inputs of the backbone's pass of these images without prompts.
        """
        prompts = self.prompts(query, task)
        injection = self.distiller.inject(prompts, teacher_query, task)
        encoded = self.backbone.encode(images, injection, keep_blocks, resume_from)
        return self.read(encoded.features, encoded.blocks, prompts.losses)

    def read(
        self,
        tokens: Tensor,
        blocks: tuple[Tensor, ...] = (),
        prompt_losses: dict[int, Tensor] | None = None,
    ) -> Output:
        """Return the output of final tokens `[B, 1 or 2, D]`, see `Output`."""
        return Output(self.head(tokens[:, 0]), tokens, blocks, prompt_losses or {})

    def losses(
        self, output: Output, teacher_output: TeacherOutput | None, labels: Tensor, classes: slice
    ) -> dict[str, Tensor]:
        """Return the named parts of the objective, ready to be summed."""
        losses: dict[str, Tensor] = self.distiller(output, teacher_output, labels, classes)
        losses["prompt"] = sum(output.prompt_losses.values(), output.logits.new_zeros(()))
        for name in _AUXILIARY & set(losses):
            losses[name] = self.auxiliary_weight * losses[name]
        return losses

    def predict(self, output: Output, seen: int) -> Tensor:
        """Return logits `[B, seen]` over the classes seen so far."""
        return self.distiller.predict(output)[:, :seen]

    def heads(self) -> dict[str, tuple[nn.Module, int]]:
        """Return every head that predicts, by name, with the token that it reads."""
        return {"head": (self.head, 0), **self.distiller.heads()}

    def start_task(self, task: int, n_classes: int, *keys: str | int) -> None:
        """Draw what a new task of `n_classes` new classes needs; `keys` fix the randomness.

        Every head gains their columns, drawn by keys of this task alone.
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
        """Return the parameters that training changes."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def state(self) -> dict[str, Tensor]:
        """Return all tensors but the backbone's, by name."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith("backbone.")}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Set what `state` returned; raise `RuntimeError` if a name or shape differs.

        What grows with the tasks becomes as large as it is there.
        What an artifact holds for later tasks alone, under `MEMORY`, is left out.
        """
        frozen = {k: v for k, v in self.state_dict().items() if k.startswith("backbone.")}
        own = {k: v for k, v in state.items() if not k.startswith(MEMORY)}
        self.load_state_dict({**frozen, **own})
