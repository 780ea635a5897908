"""DualPrompt (Wang et al., ECCV 2022): general prompts, and experts per task."""

import torch
from torch import Tensor, nn

from cdl.backbones.vit import KeyValue
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
from cdl.methods.growing import Growing


class DualPrompt(Growing, PromptMethod):
    """G-prompts in the first blocks, E-prompts selected by key in later blocks."""

    grows = {"key": 1, "prompt": 1}

    def __init__(
        self,
        context: PromptContext,
        *,
        pool: int | None = None,
        length: int = 20,
        g_length: int = 6,
        top_k: int = 1,
        g_layers: tuple[int, ...] = (0, 1),
        e_layers: tuple[int, ...] = (2, 3, 4),
        prompt_loss_reduction: str = "mean",
        dual_candidates: str = "learned",
    ) -> None:
        """Draw keys and prompts uniform on [0, 1).

        Args:
            context: backbone, query and stream.
            pool: number of E-prompts `M` of each layer, drawn at the start; None draws one at the
                start of each task. Task `t` trains the one with index `t`.
            length: number of tokens `L` of an E-prompt, even: half keys, half values.
            g_length: number of tokens `Lg` of a G-prompt, even.
            top_k: number of E-prompts selected at test.
            g_layers: blocks with a G-prompt.
            e_layers: blocks with E-prompts.
            prompt_loss_reduction: `mean` or `sum` over the batch.
            dual_candidates: keys to select from at test: those `learned` so far, or `all`,
                including those of tasks not yet learnt, as released.
        """
        super().__init__()
        self.g_layers, self.e_layers = tuple(g_layers), tuple(e_layers)
        self.layers = self.g_layers + self.e_layers
        self.top_k, self.reduction, self.candidates = top_k, prompt_loss_reduction, dual_candidates
        n = len(self.e_layers)
        self.g_prompt = nn.Parameter(
            torch.rand(len(self.g_layers), g_length, context.width, generator=context.generator)
        )
        self.open_ended, drawn = pool is None, pool or 0
        self.key = nn.Parameter(
            torch.rand(n, drawn, context.query_width, generator=context.generator)
        )
        self.prompt = nn.Parameter(
            torch.rand(n, drawn, length, context.width, generator=context.generator)
        )

    def start_task(self, task: int, generator: torch.Generator) -> None:
        if self.open_ended:
            drawn = {}
            for name in self.grows:
                layers, _, *sizes = getattr(self, name).shape
                drawn[name] = torch.rand(layers, 1, *sizes, generator=generator)
            self.append(task, **drawn)

    def forward(self, query: Tensor | None, task: int) -> Prompts:
        assert query is not None
        batch = query.shape[0]  # a symbolic size in an exported graph
        general = self.g_prompt[:, None].expand(-1, batch, -1, -1)
        if self.training:
            expert = self.prompt[:, task, None].expand(-1, batch, -1, -1)
            distance = 1 - cosine(query, self.key[:, task, None])[..., 0]  # [layers, B]
            losses = batch_losses(self.e_layers, distance, self.reduction)
            return Prompts(self._prefixes(general, expert), losses=losses)
        chosen = self._closest(query, task)
        layer = torch.arange(len(self.e_layers), device=query.device)[:, None, None]
        halved = self.prompt[layer, chosen].chunk(2, dim=3)  # [layers, B, k, L/2, D] each
        expert = torch.cat([half.flatten(2, 3) for half in halved], dim=2)
        return Prompts(self._prefixes(general, expert))

    def choice(self, query: Tensor, task: int) -> Choice:
        chosen = self._closest(query, task)
        return Choice(self.e_layers, marked(chosen, self.key.shape[1]), per_task=1)

    def _closest(self, query: Tensor, task: int) -> Tensor:
        """Return the indices of the selected E-prompts at test, `[layers, B, k]`."""
        keys = self.key if self.candidates == "all" else self.key[:, : task + 1]
        return cosine(query, keys).topk(min(self.top_k, keys.shape[1]), dim=-1).indices

    def _prefixes(self, general: Tensor, expert: Tensor) -> dict[int, KeyValue]:
        return halves(self.g_layers, general) | halves(self.e_layers, expert)
