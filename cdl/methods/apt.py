"""APT (Chen et al., ICCV 2025): prompts added to the class token's key and value."""

import torch
from torch import Tensor, nn

from cdl.methods.base import PromptContext, PromptMethod, Prompts
from cdl.methods.heads import NormalisedHead


class APT(PromptMethod):
    """One key and one value vector per block; inference uses their moving average.

    Rows `2l` and `2l+1` of `prompt_tokens` belong to block `l`. After task 0 the merged tokens are
    a copy of the trained ones, after each later task they move towards them. The next task
    continues from the trained ones.
    """

    head = NormalisedHead
    merged: Tensor
    merged_before: Tensor

    def __init__(
        self,
        context: PromptContext,
        *,
        ema: float = 0.7,
    ) -> None:
        """Draw tokens from a normal of std 0.02, truncated at +-2; merged tokens are 0.

        Args:
            context: backbone, query and stream.
            ema: weight of the old merged tokens in a merge.
        """
        super().__init__()
        self.ema = ema
        start = torch.empty(2 * context.depth, context.width)
        nn.init.trunc_normal_(start, std=0.02, a=-2, b=2, generator=context.generator)
        self.prompt_tokens = nn.Parameter(start)
        self.register_buffer("merged", torch.zeros_like(start))
        self.register_buffer("merged_before", torch.zeros_like(start))

    def forward(self, query: Tensor | None, task: int) -> Prompts:
        tokens = self.prompt_tokens if self.training else self.merged
        return Prompts(additions=dict(enumerate(zip(tokens[::2], tokens[1::2], strict=True))))

    @torch.no_grad()
    def end_task(self, task: int) -> None:
        self.merged_before.copy_(self.merged)
        if task == 0:
            self.merged.copy_(self.prompt_tokens)
        else:
            self.merged.mul_(self.ema).add_(self.prompt_tokens, alpha=1 - self.ema)

    @torch.no_grad()
    def undo_merge(self) -> None:
        """Restore the merged tokens of the previous task (zeros after task 0).

        The released code merges a teacher's prompt only after the student's stage, so its student
        is distilled from the unmerged teacher.
        """
        self.merged.copy_(self.merged_before)
