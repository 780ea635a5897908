"""SD-LoRA (Wu et al., ICLR 2025): fixed directions of earlier tasks with learnt magnitudes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cdl.methods.base import PromptContext, PromptMethod, Prompts
from cdl.methods.growing import Growing
from cdl.methods.low_rank import branches, draw_down

PARTS = ("q", "v")
START = 0.8  # magnitude of a new branch


class SDLoRA(Growing, PromptMethod):
    """Branches on queries and values: `sum_{i<t} m_i d_i + m_t up down a`.

    The directions `d_i` of earlier tasks are constants; all magnitudes `m` are learnt, one per task
    for all blocks and both projections.
    """

    grows = {"past_down": 2, "past_up": 3, "magnitudes": 0}
    past_down: Tensor
    past_up: Tensor

    def __init__(
        self, context: PromptContext, *, ranks: Sequence[int] = (10,), as_released: bool = False
    ) -> None:
        """Start the first branch.

        Args:
            context: the backbone.
            ranks: rank of each task's branch; later tasks use the last one. SD-LoRA-RR is
                `(10, 10, 10, 10, 8, 8, 8, 8, 6)`.
            as_released: whether each factor of a direction is divided by its own norm and all
                magnitudes start at 0.8 in every task, so that the features jump there. Otherwise a
                direction is divided by one norm over all blocks and projections, its magnitude is
                multiplied by it, and learnt magnitudes are kept: the features do not change.
        """
        super().__init__()
        self.ranks, self.as_released = tuple(ranks), as_released
        n, depth, width, rank = len(PARTS), context.depth, context.width, self.ranks[0]
        self.down = nn.Parameter(draw_down(n, depth, rank, width, source=context.generator))
        self.up = nn.Parameter(torch.zeros(n, depth, width, rank))
        self.magnitudes = nn.Parameter(torch.full((1,), START))
        self.register_buffer("past_down", torch.zeros(n, depth, 0, width))
        self.register_buffer("past_up", torch.zeros(n, depth, width, 0))

    def rank(self, task: int) -> int:
        """Return the rank of a task's branch."""
        return self.ranks[min(task, len(self.ranks) - 1)]

    def forward(self, query: Tensor | None, task: int) -> Prompts:
        ranks = [self.rank(i) for i in range(len(self.magnitudes))]
        factors = torch.cat([m.expand(n) for m, n in zip(self.magnitudes, ranks, strict=True)])
        down = torch.cat([self.past_down, self.down], dim=2)
        up = torch.cat([self.past_up, self.up], dim=3) * factors
        return Prompts(inside=(branches(PARTS, down, up),))

    @torch.no_grad()
    def start_task(self, task: int, generator: torch.Generator) -> None:
        if not task:
            return
        magnitudes, size = self.magnitudes.detach(), self.past_down.shape[2]
        down, up, norm = self._direction()
        self.append(size, past_down=down)
        self.append(size, past_up=up)
        if self.as_released:
            magnitudes = torch.full_like(magnitudes, START)
        else:
            magnitudes = torch.cat([magnitudes[:-1], magnitudes[-1:] * norm])
        self.magnitudes = nn.Parameter(torch.cat([magnitudes, magnitudes.new_full((1,), START)]))
        n, depth, _, width = self.down.shape
        drawn = draw_down(n, depth, self.rank(task), width, source=generator)
        self.down = nn.Parameter(drawn.to(self.down))
        self.up = nn.Parameter(self.up.new_zeros(n, depth, width, self.rank(task)))

    def _direction(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return `down` and `up` of the last task's direction, and its norm.

        A branch that stayed at 0 keeps the direction 0.
        """
        norms = [part.norm(dim=(2, 3), keepdim=True) for part in (self.down, self.up)]
        if self.as_released:
            down, up = (
                part / norm.clamp_min(1e-12)
                for part, norm in zip((self.down, self.up), norms, strict=True)
            )
            return down, up, norms[0].new_ones(())
        norm = (norms[0] * norms[1]).square().mean().sqrt()
        return self.down, self.up / norm.clamp_min(1e-12), norm

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *rest: object
    ) -> None:
        for name in ("down", "up"):  # ranks differ between tasks
            given = state_dict.get(prefix + name)
            if given is not None and given.shape != getattr(self, name).shape:
                setattr(self, name, nn.Parameter(getattr(self, name).new_empty(given.shape)))
        super()._load_from_state_dict(state_dict, prefix, *rest)
