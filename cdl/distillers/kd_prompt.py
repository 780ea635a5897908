"""KD prompts (KDP, later D-CDL): a KD token and prefixes shared by all samples."""

from dataclasses import replace
from typing import Unpack

import torch
from torch import Tensor, nn

from cdl.backbones.vit import Injection
from cdl.distillers.base import DistillerContext
from cdl.distillers.kd import ColumnOptions
from cdl.distillers.kd_token import KDToken
from cdl.methods.base import Prompts

STD = 0.02  # of normal initial values


class KDPrompt(KDToken):
    """The KD token with KD prefixes in the blocks after the first.

    All tasks train the same prefixes; they are neither selected per sample nor reset. They may stop
    learning after some tasks, together with the token.
    """

    def __init__(
        self,
        context: DistillerContext,
        *,
        kd_head: bool = True,
        start: str = "uniform",
        prefix_start: str = "uniform",
        freeze_after: int | None = None,
        kd_layers: int | None = None,
        kd_length: int = 6,
        **soft: Unpack[ColumnOptions],
    ) -> None:
        """Draw the token and the prefixes.

        Args:
            context: the two models.
            kd_head: see `KDToken`.
            start: of the token, see `KDToken`.
            prefix_start: of the prefixes: `uniform` on [0, 1), as released; `normal` with mean 0
                and standard deviation 0.02, as timm initialises tokens; or `zeros`.
            freeze_after: see `KDToken`.
            kd_layers: blocks `1 .. kd_layers-1` get a prefix; None uses the student's depth; 1
                means no prefixes, as in `kd_token`.
            kd_length: number of tokens of a prefix, even: half keys, half values, after all others.
            soft: see `KDToken`.
        """
        super().__init__(context, kd_head=kd_head, start=start, freeze_after=freeze_after, **soft)
        n = (context.student.depth if kd_layers is None else kd_layers) - 1
        shape = (n, kd_length, context.student.width)
        self.kd_prompts = nn.Parameter(_drawn(prefix_start, shape, context.generator))

    @property
    def shared(self) -> tuple[nn.Parameter, ...]:
        return (self.kd_token, self.kd_prompts)

    def inject(self, prompts: Prompts, teacher_query: Tensor | None, task: int) -> Injection:
        rows = enumerate(self.kd_prompts, start=1)
        suffixes = {layer: tuple(prefix.chunk(2)) for layer, prefix in rows}
        return replace(super().inject(prompts, teacher_query, task), suffixes=suffixes)


def _drawn(start: str, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Return initial values of the prefixes, see `prefix_start`."""
    if start == "normal":
        return STD * torch.randn(shape, generator=generator)
    return torch.rand(shape, generator=generator) if start == "uniform" else torch.zeros(shape)
