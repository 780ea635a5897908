"""VPT-deep (Jia et al., ECCV 2022): tokens at the end of the sequence of every block."""

import torch
from torch import nn

from cdl.backbones.inside import Inside


class VPT(nn.Module):
    """Tokens without positions, appended before each block and removed after it."""

    def __init__(self, width: int, depth: int, source: torch.Generator, n: int = 5) -> None:
        """Start at 0: `[depth, n, D]`."""
        super().__init__()
        self.prompt = nn.Parameter(torch.zeros(depth, n, width))

    def inside(self) -> Inside:
        """Return the tokens of every block."""
        return Inside(tokens=dict(enumerate(self.prompt)))
