"""Learning to Prompt (Wang et al., CVPR 2022): top-k prompts of a pool."""

import torch
from torch import Tensor, nn

from cdl.methods.base import (
    Choice,
    PromptContext,
    PromptMethod,
    Prompts,
    batch_losses,
    cosine,
    halves,
    marked,
)


class L2P(PromptMethod):
    """A pool of prompts; a sample uses the `top_k` with keys closest to its query."""

    def __init__(
        self,
        context: PromptContext,
        *,
        pool: int = 30,
        length: int = 20,
        top_k: int = 5,
        layers: tuple[int, ...] = (0,),
        prompt_loss_reduction: str = "mean",
    ) -> None:
        """Draw keys and prompts uniform on [0, 1).

        Args:
            context: backbone, query and stream.
            pool: number of prompts `M`.
            length: number of tokens `L` of a prompt, even: half keys, half values.
            top_k: number of prompts selected per sample, concatenated by descending similarity.
            layers: prompted blocks; the deep variant of the paper is `(0, 1, 2, 3, 4)`.
            prompt_loss_reduction: `mean` or `sum` over the batch.
        """
        super().__init__()
        self.layers, self.top_k = tuple(layers), top_k
        self.reduction = prompt_loss_reduction
        n = len(self.layers)
        self.key = nn.Parameter(
            torch.rand(n, pool, context.query_width, generator=context.generator)
        )
        self.prompt = nn.Parameter(
            torch.rand(n, pool, length, context.width, generator=context.generator)
        )

    def forward(self, query: Tensor | None, task: int) -> Prompts:
        assert query is not None
        similarity, chosen = self._closest(query)
        layer = torch.arange(len(self.layers), device=query.device)[:, None, None]
        prompts = self.prompt[layer, chosen]  # [layers, B, k, L, D]
        keys, values = (half.flatten(2, 3) for half in prompts.chunk(2, dim=3))
        prefixes = halves(self.layers, torch.cat([keys, values], dim=2))
        if not self.training:
            return Prompts(prefixes)
        losses = batch_losses(self.layers, (1 - similarity).sum(-1), self.reduction)
        return Prompts(prefixes, losses=losses)

    def choice(self, query: Tensor, task: int) -> Choice:
        return Choice(self.layers, marked(self._closest(query)[1], self.key.shape[1]))

    def _closest(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Return similarities and indices of the selected prompts, `[layers, B, k]` each."""
        similarity, chosen = cosine(query, self.key).topk(self.top_k, dim=-1)
        return similarity, chosen
