"""The distillation token of DeiT (Touvron et al., ICML 2021) with its own head."""

from typing import Unpack

import torch
from torch import Tensor, nn

from cdl.backbones.vit import Injection
from cdl.distillers.base import DistillerContext, Output
from cdl.distillers.kd import ColumnOptions, ColumnsKD
from cdl.methods.base import Prompts


class KDToken(ColumnsKD):
    """A learned token, appended after the patches; its final state is distilled."""

    def __init__(
        self,
        context: DistillerContext,
        *,
        kd_head: bool = True,
        start: str = "uniform",
        freeze_after: int | None = None,
        **soft: Unpack[ColumnOptions],
    ) -> None:
        """Draw the token.

        Args:
            context: the two models.
            kd_head: False applies the soft loss to the class head, the only head for prediction.
            start: `uniform` on [0, 1), or `zeros`, as in the version of 2024-12.
            freeze_after: number of tasks after which the parameters that all tasks share stop
                learning, while the heads go on; None: never.
            soft: as in `ColumnsKD`; `alpha` is also the weight of the KD head in the prediction.
        """
        super().__init__(context, **soft)
        self.freeze_after = freeze_after
        self.kd_head = context.head(context.generator) if kd_head else None
        drawn = torch.rand(1, context.student.width, generator=context.generator)
        self.kd_token = nn.Parameter(drawn if start == "uniform" else torch.zeros_like(drawn))

    @property
    def shared(self) -> tuple[nn.Parameter, ...]:
        """Parameters that all tasks train, besides the heads."""
        return (self.kd_token,)

    def start_task(self, task: int, generator: torch.Generator) -> None:
        for parameter in self.shared:
            parameter.requires_grad_(self.freeze_after is None or task < self.freeze_after)

    def inject(self, prompts: Prompts, teacher_query: Tensor | None, task: int) -> Injection:
        return Injection(prompts.prefixes, {}, prompts.additions, self.kd_token)

    def soft_logits(self, output: Output) -> Tensor:
        return output.logits if self.kd_head is None else self.kd_head(output.tokens[:, -1])

    def heads(self) -> dict[str, tuple[nn.Module, int]]:
        return {} if self.kd_head is None else {"kd_head": (self.kd_head, -1)}

    def predict(self, output: Output) -> Tensor:
        if self.kd_head is None:
            return output.logits
        return (1 - self.alpha) * output.logits + self.alpha * self.soft_logits(output)
