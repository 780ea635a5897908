"""OnePrompt (Huang et al., ICLR 2024, the prompts of OVOR): one prompt per block."""

import torch
from torch import Tensor, nn

from cdl.methods.base import PromptContext, PromptMethod, Prompts, halves


class OnePrompt(PromptMethod):
    """The same prefixes for all samples and tasks, without query and prompt loss.

    Training and inference need one pass of the ViT. All tasks train the same prompts.
    """

    def __init__(
        self,
        context: PromptContext,
        *,
        length: int = 40,
        g_length: int = 10,
        g_layers: tuple[int, ...] = (0, 1),
        e_layers: tuple[int, ...] = (2, 3, 4),
    ) -> None:
        """Draw prompts uniform on [0, 1).

        Args:
            context: the backbone.
            length: number of tokens `L` of a prompt in the later blocks, even: half keys, half
                values.
            g_length: number of tokens `Lg` of a prompt in the first blocks, even.
            g_layers: first blocks. Both names come from DualPrompt; there are no general or
                expert prompts here.
            e_layers: later blocks.
        """
        super().__init__()
        self.g_layers, self.e_layers = tuple(g_layers), tuple(e_layers)
        self.layers = self.g_layers + self.e_layers
        n, width, source = len(self.g_layers), context.width, context.generator
        self.g_prompt = nn.Parameter(torch.rand(n, g_length, width, generator=source))
        n = len(self.e_layers)
        self.prompt = nn.Parameter(torch.rand(n, length, width, generator=source))

    def forward(self, query: Tensor | None, task: int) -> Prompts:
        first = halves(self.g_layers, self.g_prompt[:, None])
        return Prompts(first | halves(self.e_layers, self.prompt[:, None]))
