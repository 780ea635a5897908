"""Prompt mapping, the first form of continual distillation learning.

On each prompted layer the teacher's prompt of a sample is mapped to a student prefix, and a KD head
on the class token is trained with the teacher's logits.
"""

from collections.abc import Mapping
from typing import Unpack

import torch
from torch import Tensor, nn

from cdl.backbones.vit import Injection
from cdl.distillers.base import DistillerContext, Output
from cdl.distillers.kd import ColumnOptions, ColumnsKD
from cdl.distillers.mappings import MAPPINGS
from cdl.methods.base import Prompts


class CDLPrompt(ColumnsKD):
    """A student with prefixes that are mapped from the teacher's.

    The teacher's prompt method is part of this module (frozen, in eval mode). The student works
    without the teacher's ViT if both use the same query.
    """

    def __init__(
        self,
        context: DistillerContext,
        *,
        mapping: str = "attention",
        pool: int | None = None,
        pool_per_task: int | None = None,
        length: int = 8,
        teacher_prompts: str = "learnt",
        coda_growth: str = "exact",
        **soft: Unpack[ColumnOptions],
    ) -> None:
        """Create the mapping; the entries of a pool are drawn at the start of each task.

        Args:
            context: the two models and the teacher's prompt method.
            mapping: `attention`, `self_attention` or `linear`.
            pool: number of entries of the attention mapping's pool, all tasks together, at most
                `min(Dt, length D)`; None if `pool_per_task` is given.
            pool_per_task: number of entries of each task.
            length: number of tokens of the attention mapping's prefix, even: half keys, half
                values.
            teacher_prompts: `learnt`, or `initial`: drawn as for a new learner and never trained,
                the control for what is mapped.
            coda_growth: how its pool grows, see `cdl.methods.coda_prompt.ComponentPool`.
            soft: as in `ColumnsKD`.
        """
        super().__init__(context, **soft)
        self.kd_head = context.head(context.generator)
        assert context.teacher_prompts is not None
        self.teacher_prompts = context.teacher_prompts.requires_grad_(False)
        self.learnt = teacher_prompts == "learnt"
        layers = self.teacher_prompts.layers
        self.mapping = MAPPINGS[mapping](layers, context, length, coda_growth, pool, pool_per_task)

    def train(self, mode: bool = True) -> "CDLPrompt":
        """Set the mode of the mapping; the teacher's prompts stay in eval mode."""
        super().train(mode)
        self.teacher_prompts.eval()
        return self

    def start_task(self, task: int, generator: torch.Generator) -> None:
        self.mapping.start_task(task, generator)
        if not self.learnt:
            self.teacher_prompts.start_task(task, generator)
            self.teacher_prompts.requires_grad_(False)

    def read_teacher(self, prompts: Mapping[str, Tensor]) -> None:
        if self.learnt:
            self.teacher_prompts.load_state_dict(prompts)

    def inject(self, prompts: Prompts, teacher_query: Tensor | None, task: int) -> Injection:
        mapped = self.mapping(self.teacher_prompts(teacher_query, task).prefixes, task)
        prefixes = dict(prompts.prefixes)
        for layer, pair in mapped.items():
            own = prefixes.get(layer)
            if own is not None:
                keys, values = (torch.cat(parts, dim=1) for parts in zip(pair, own, strict=True))
                pair = keys, values
            prefixes[layer] = pair
        return Injection(prefixes, {}, prompts.additions)

    def soft_logits(self, output: Output) -> Tensor:
        logits: Tensor = self.kd_head(output.tokens[:, 0])
        return logits

    def heads(self) -> dict[str, tuple[nn.Module, int]]:
        return {"kd_head": (self.kd_head, 0)}

    def predict(self, output: Output) -> Tensor:
        return (output.logits + self.soft_logits(output)) / 2
