"""KD prompts (KDP, later D-CDL): a KD token, KD prefixes shared by all tasks, and a KD head."""

import torch
from torch import Tensor, nn

from cdl.distillers.base import Output, Setting
from cdl.distillers.kd import KD
from cdl.prompts import Prompts
from cdl.vit import Injection


class KDPrompt(KD):
    """The KD token (DeiT, Touvron et al., ICML 2021) with prefixes for it and the image tokens.

    Token and prefixes are the same for all samples and are never re-selected or reset, so what
    the teacher taught persists across tasks.
    """

    def __init__(
        self,
        setting: Setting,
        *,
        alpha: float = 0.5,
        temperature: float = 2.0,
        kd_layers: int | None = None,
        kd_length: int = 6,
    ) -> None:
        """Draw token and prefixes uniform on [0, 1).

        Args:
            setting: the two models.
            alpha: share of the soft loss, and of the KD head in the prediction.
            temperature: of the soft loss.
            kd_layers: blocks `1 .. kd_layers-1` get a prefix; None: the student's depth.
            kd_length: tokens of a prefix, even: half keys, half values, after all others.
        """
        super().__init__(setting, alpha=alpha, temperature=temperature)
        width, generator = setting.student.width, setting.generator
        n = (setting.student.depth if kd_layers is None else kd_layers) - 1
        self.kd_head = setting.head(generator)
        self.kd_token = nn.Parameter(torch.rand(1, width, generator=generator))
        self.kd_prompts = nn.Parameter(torch.rand(n, kd_length, width, generator=generator))

    def inject(self, prompts: Prompts, teacher_query: Tensor | None, task: int) -> Injection:
        suffixes = {layer: rows.chunk(2) for layer, rows in enumerate(self.kd_prompts, start=1)}
        return Injection(prompts.prefixes, suffixes, prompts.additions, self.kd_token)

    def soft_logits(self, output: Output) -> Tensor:
        return self.kd_head(output.tokens[:, -1])

    def predict(self, output: Output) -> Tensor:
        return (1 - self.alpha) * output.logits + self.alpha * self.soft_logits(output)
