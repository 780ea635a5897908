"""VQ-Prompt (Jiao et al., NeurIPS 2024): a continuous prompt, quantised to the nearest one."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cdl.methods.base import PromptContext, PromptMethod, Prompts, halves


class VQPrompt(PromptMethod):
    """A pool per block, open at every task; a sample takes the prompt nearest its weighted mean.

    With `a = softmax(q . K_m / |K_m| / tau)` the continuous prompt is `c = sum_m a_m P_m` and the
    prompt taken is the nearest `P_k`, through which gradients pass straight to `c`. The query is
    not normalised, so its length acts on the softmax as a temperature does.
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
            context: backbone, query and stream that the prompts are for.
            pool: prompts `M` of each block.
            length: tokens `L` of a prompt, even: half keys, half values.
            temperature: `tau` of the softmax over the pool.
            commitment_weight: of the loss that draws `c` to the prompt taken.
            codebook_weight: of the loss that draws the prompt taken to `c`.
            layers: prompted blocks.
        """
        super().__init__()
        self.layers, self.temperature = tuple(layers), temperature
        self.commitment_weight, self.codebook_weight = commitment_weight, codebook_weight
        n, source = len(self.layers), context.generator
        self.key = nn.Parameter(torch.rand(n, pool, context.query_width, generator=source))
        self.prompt = nn.Parameter(torch.rand(n, pool, length, context.width, generator=source))

    def select(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Return continuous prompts `[layers, B, L, D]` and the nearest ones' index `[layers, B]`.

        The distance is the squared one over all `L D` entries.
        """
        scores = query @ F.normalize(self.key, dim=-1, eps=1e-12).mT / self.temperature
        continuous = torch.einsum("ybm,ymld->ybld", scores.softmax(-1), self.prompt)
        with torch.no_grad():  # |c - P|^2 without |c|^2, which is the same for all
            flat = self.prompt.flatten(2)
            distance = flat.square().sum(-1)[:, None] - 2 * continuous.flatten(2) @ flat.mT
        return continuous, distance.argmin(-1)

    def forward(self, query: Tensor | None, task: int) -> Prompts:
        assert query is not None
        continuous, index = self.select(query)
        layer = torch.arange(len(self.layers), device=index.device)[:, None]
        taken = self.prompt[layer, index]  # [layers, B, L, D]
        prefixes = halves(self.layers, continuous + (taken - continuous).detach())
        if not self.training:
            return Prompts(prefixes)
        commitment = (continuous - taken.detach()).square().mean((1, 2, 3))
        codebook = (taken - continuous.detach()).square().mean((1, 2, 3))
        losses = self.commitment_weight * commitment + self.codebook_weight * codebook
        return Prompts(prefixes, losses=dict(zip(self.layers, losses, strict=True)))
