"""KD prompts (KDP, later D-CDL): the KD token with prefixes shared by all tasks and samples."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from cdl.distillers.base import Setting
from cdl.distillers.kd_token import KDToken
from cdl.prompts import Prompts
from cdl.vit import Injection


class KDPrompt(KDToken):
    """The KD token, helped by KD prefixes in the blocks after the first.

    The prefixes are never re-selected or reset, so what the teacher taught persists across tasks.
    """

    def __init__(
        self,
        setting: Setting,
        *,
        alpha: float = 0.5,
        temperature: float = 2.0,
        kd_head: bool = True,
        kd_layers: int | None = None,
        kd_length: int = 6,
    ) -> None:
        """Draw token and prefixes uniform on [0, 1).

        Args:
            setting: the two models.
            alpha: share of the soft loss, and of the KD head in the prediction.
            temperature: of the soft loss.
            kd_head: see `KDToken`.
            kd_layers: blocks `1 .. kd_layers-1` get a prefix; None: the student's depth; with 1
                there is none and the method is `kd_token`.
            kd_length: tokens of a prefix, even: half keys, half values, after all others.
        """
        super().__init__(setting, alpha=alpha, temperature=temperature, kd_head=kd_head)
        n = (setting.student.depth if kd_layers is None else kd_layers) - 1
        self.kd_prompts = nn.Parameter(
            torch.rand(n, kd_length, setting.student.width, generator=setting.generator)
        )

    def inject(self, prompts: Prompts, teacher_query: Tensor | None, task: int) -> Injection:
        rows = enumerate(self.kd_prompts, start=1)
        suffixes = {layer: tuple(prefix.chunk(2)) for layer, prefix in rows}
        return replace(super().inject(prompts, teacher_query, task), suffixes=suffixes)
