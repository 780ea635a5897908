"""KD prompts (KDP, later D-CDL): a KD token and prefixes shared by all samples."""

from dataclasses import replace
from typing import Unpack

import torch
from torch import Tensor, nn

from cdl.backbones.vit import Injection
from cdl.distillers.base import DistillerContext
from cdl.distillers.kd import SoftOptions
from cdl.distillers.kd_token import KDToken
from cdl.methods.base import Prompts


class KDPrompt(KDToken):
    """The KD token with KD prefixes in the blocks after the first.

    All tasks train the same prefixes; they are neither selected per sample nor reset.
    """

    def __init__(
        self,
        context: DistillerContext,
        *,
        kd_head: bool = True,
        start: str = "uniform",
        kd_layers: int | None = None,
        kd_length: int = 6,
        **soft: Unpack[SoftOptions],
    ) -> None:
        """Draw the token and the prefixes; the prefixes are uniform on [0, 1).

        Args:
            context: the two models.
            kd_head: see `KDToken`.
            start: see `KDToken`.
            kd_layers: blocks `1 .. kd_layers-1` get a prefix; None uses the student's depth; 1
                means no prefixes, as in `kd_token`.
            kd_length: number of tokens of a prefix, even: half keys, half values, after all others.
            soft: see `KDToken`.
        """
        super().__init__(context, kd_head=kd_head, start=start, **soft)
        n = (context.student.depth if kd_layers is None else kd_layers) - 1
        self.kd_prompts = nn.Parameter(
            torch.rand(n, kd_length, context.student.width, generator=context.generator)
        )

    def inject(self, prompts: Prompts, teacher_query: Tensor | None, task: int) -> Injection:
        rows = enumerate(self.kd_prompts, start=1)
        suffixes = {layer: tuple(prefix.chunk(2)) for layer, prefix in rows}
        return replace(super().inject(prompts, teacher_query, task), suffixes=suffixes)
