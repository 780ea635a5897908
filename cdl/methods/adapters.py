"""Bottleneck adapters beside the MLP of every block (AdaptFormer, Chen et al., NeurIPS 2022)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cdl.backbones.inside import Inside
from cdl.runtime.seeds import uniform

Kept = Callable[[int, Tensor], Tensor]  # of block and hidden units `[B, N, r]`, of the same shape


class Adapter(nn.Module):
    """`scale (W_up relu(W_down u + b_down) + b_up)` of the tokens `u [B, N, D]` of one block.

    `W_up` and both biases start at 0, so the first forward pass is that of the plain ViT.
    """

    def __init__(self, width: int, bottleneck: int, scale: float, source: torch.Generator) -> None:
        """Draw `W_down` uniform on +-1/sqrt(D)."""
        super().__init__()
        self.scale = scale
        self.down, self.up = nn.Linear(width, bottleneck), nn.Linear(bottleneck, width)
        bound = 1 / math.sqrt(width)
        with torch.no_grad():
            self.down.weight.uniform_(-bound, bound, generator=source)
            for parameter in (self.down.bias, self.up.weight, self.up.bias):
                parameter.zero_()
        self.dropped: Callable[[Tensor], Tensor] | None = None

    def forward(self, u: Tensor) -> Tensor:
        """Return what is added to the block's output, in the dtype of `u`."""
        hidden = F.relu(F.linear(u, self.down.weight.to(u.dtype), self.down.bias.to(u.dtype)))
        if self.dropped is not None:
            hidden = self.dropped(hidden)
        up = F.linear(hidden, self.up.weight.to(u.dtype), self.up.bias.to(u.dtype))
        return self.scale * up


class Adapters(nn.ModuleList):
    """One adapter per block, with a dropout that a resumed task repeats.

    The dropout masks are a function of seed, block and number of training passes, which is a buffer
    and so part of a saved state.

    Attributes:
        kept: function that returns the mask of a block; 1 keeps.
    """

    passes: Tensor

    def __init__(
        self,
        width: int,
        depth: int,
        source: torch.Generator,
        *,
        bottleneck: int = 64,
        scale: float = 0.1,
        dropout: float = 0.1,
    ) -> None:
        """Draw the adapters.

        Args:
            width: width `D` of the tokens.
            depth: number of blocks.
            source: random generator.
            bottleneck: hidden units `r`.
            scale: factor of the output, bias included.
            dropout: share of hidden units that are set to 0 in training.
        """
        super().__init__(Adapter(width, bottleneck, scale, source) for _ in range(depth))
        self.dropout = dropout
        self._seed = int(torch.randint(2**31, (1,), generator=source))
        self.kept: Kept = self._draw
        if dropout:
            self.register_buffer("passes", torch.zeros((), dtype=torch.int64))

    def _draw(self, layer: int, hidden: Tensor) -> Tensor:
        rows = torch.arange(len(hidden), device=hidden.device) + self.passes * len(hidden)
        drawn = uniform((self._seed, layer), rows, hidden[0].numel())
        return drawn.view(hidden.shape) >= self.dropout

    def _drop(self, layer: int, hidden: Tensor) -> Tensor:
        kept = self.kept(layer, hidden).to(hidden.dtype)
        return hidden * kept / (1 - self.dropout)

    def inside(self) -> Inside:
        """Return the adapters for one pass, with dropout in training mode."""
        drops = self.training and self.dropout > 0
        if drops:
            self.passes += 1
        for layer, adapter in enumerate(self):
            assert isinstance(adapter, Adapter)
            adapter.dropped = _bound(self._drop, layer) if drops else None
        return Inside(adapters=dict(enumerate(self)))


def _bound(drop: Callable[[int, Tensor], Tensor], layer: int) -> Callable[[Tensor], Tensor]:
    return lambda hidden: drop(layer, hidden)
