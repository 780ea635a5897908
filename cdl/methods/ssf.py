"""SSF (Lian et al., NeurIPS 2022): scales and shifts after every linear map and norm."""

import torch
from torch import Tensor, nn

from cdl.backbones.inside import BLOCK_SITES, Inside


class ScaleShift(nn.Module):
    """`y * scale + shift` per channel; starts near the identity, not at it."""

    def __init__(self, width: int, source: torch.Generator) -> None:
        """Draw scales from N(1, 0.02) and shifts from N(0, 0.02)."""
        super().__init__()
        self.scale = nn.Parameter(1 + 0.02 * torch.randn(width, generator=source))
        self.shift = nn.Parameter(0.02 * torch.randn(width, generator=source))

    @property
    def pair(self) -> tuple[Tensor, Tensor]:
        """Scale and shift, both `[D']`."""
        return self.scale, self.shift


class SSF(nn.Module):
    """Scales and shifts of a whole ViT, by the names of timm's modules."""

    def __init__(self, width: int, depth: int, source: torch.Generator) -> None:
        """Draw them for `depth` blocks of tokens `[B, N, width]`."""
        super().__init__()
        multiples = {"patch_embed.proj": 1}
        for layer in range(depth):
            multiples |= {f"blocks.{layer}.{site}": n for site, n in BLOCK_SITES.items()}
        multiples["norm"] = 1
        self.sites = tuple(multiples)
        self.maps = nn.ModuleList(ScaleShift(n * width, source) for n in multiples.values())

    def inside(self) -> Inside:
        """Return scale and shift of every site."""
        pairs = (part.pair for part in self.maps if isinstance(part, ScaleShift))
        return Inside(affine=dict(zip(self.sites, pairs, strict=True)))
