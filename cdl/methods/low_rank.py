"""What methods with low-rank branches share: initial values, growth, and the branches' pairs."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cdl.backbones.inside import Inside


def draw_down(*shape: int, source: torch.Generator) -> Tensor:
    """Return `down` matrices `[..., r, D]`, uniform on +-1/sqrt(D) (Kaiming with a = sqrt 5)."""
    bound = 1 / math.sqrt(shape[-1])
    return torch.empty(shape).uniform_(-bound, bound, generator=source)


def branches(parts: Sequence[str], down: Tensor, up: Tensor) -> Inside:
    """Return the branches of every block.

    Args:
        parts: `q`, `k` and `v`, those that have a branch.
        down: `[parts, depth, r, D]`.
        up: `[parts, depth, D, r]`.
    """
    pairs = zip(down.unbind(1), up.unbind(1), strict=True)
    return Inside(
        branches={
            layer: dict(zip(parts, zip(*pair, strict=True), strict=True))
            for layer, pair in enumerate(pairs)
        }
    )
