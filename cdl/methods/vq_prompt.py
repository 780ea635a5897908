"""VQ-Prompt (Jiao et al., NeurIPS 2024): a continuous prompt, vector-quantised."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cdl.methods.base import Choice, PromptContext, PromptMethod, Prompts, halves, marked


class VQPrompt(PromptMethod):
    """One pool of prompts per block, trained by all tasks.

    A sample uses the prompt that is nearest to a weighted mean of all prompts. With
    `a = softmax(q . K_m / |K_m| / tau)` the continuous prompt is `c = sum_m a_m P_m` and the
    selected prompt is the nearest `P_k`; a straight-through estimator passes its gradient to `c`.
    The query is not normalised, so its norm acts like an inverse temperature of the softmax.
    """

    def __init__(
        self,
        context: PromptContext,
        *,
        pool: int = 10,
        length: int = 8,
        temperature: float = 1.0,
        commitment_weight: float = 0.4,
        codebook_weight: float = 0.1,
        layers: tuple[int, ...] = (0, 1, 2, 3, 4),
    ) -> None:
        """Draw keys and prompts uniform on [0, 1).

        Args:
            context: backbone, query and stream.
            pool: number of prompts `M` of each block.
            length: number of tokens `L` of a prompt, even: half keys, half values.
            temperature: `tau` of the softmax over the pool.
            commitment_weight: weight of the loss that moves `c` to the selected prompt.
            codebook_weight: weight of the loss that moves the selected prompt to `c`.
            layers: prompted blocks.
        """
        super().__init__()
        self.layers, self.temperature = tuple(layers), temperature
        self.commitment_weight, self.codebook_weight = commitment_weight, codebook_weight
        n, source = len(self.layers), context.generator
        self.key = nn.Parameter(torch.rand(n, pool, context.query_width, generator=source))
        self.prompt = nn.Parameter(torch.rand(n, pool, length, context.width, generator=source))

    def select(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Return continuous prompts `[layers, B, L, D]` and nearest indices `[layers, B]`.

        The distance is the squared Euclidean distance over all `L D` entries.
        """
        scores = query @ F.normalize(self.key, dim=-1, eps=1e-12).mT / self.temperature
        continuous = torch.einsum("ybm,ymld->ybld", scores.softmax(-1), self.prompt)
        with torch.no_grad():  # |c - P|^2 without |c|^2, which does not change the argmin
            flat = self.prompt.flatten(2)
            distance = flat.square().sum(-1)[:, None] - 2 * continuous.flatten(2) @ flat.mT
        return continuous, distance.argmin(-1)

    def forward(self, query: Tensor | None, task: int) -> Prompts:
        assert query is not None
        continuous, index = self.select(query)
        layer = torch.arange(len(self.layers), device=index.device)[:, None]
        selected = self.prompt[layer, index]  # [layers, B, L, D]
        prefixes = halves(self.layers, continuous + (selected - continuous).detach())
        if not self.training:
            return Prompts(prefixes)
        commitment = (continuous - selected.detach()).square().mean((1, 2, 3))
        codebook = (selected - continuous.detach()).square().mean((1, 2, 3))
        losses = self.commitment_weight * commitment + self.codebook_weight * codebook
        return Prompts(prefixes, losses=dict(zip(self.layers, losses, strict=True)))

    def choice(self, query: Tensor, task: int) -> Choice:
        _, index = self.select(query)
        return Choice(self.layers, marked(index[..., None], self.key.shape[1]))
