"""Classification heads on one token. They grow with the classes of each task."""

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cdl.methods.growing import Growing


def linear(d_in: int, d_out: int, generator: torch.Generator) -> nn.Linear:
    """Return a linear map, weight and bias uniform on +-1/sqrt(d_in) as in torch."""
    layer = nn.Linear(d_in, d_out)
    bound = 1 / math.sqrt(d_in)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-bound, bound, generator=generator)
    return layer


class Columns(Growing):
    """A linear map `[B, D]` to `[B, C]` with a growing number of outputs."""

    grows = {"weight": 0, "bias": 0}

    def __init__(self, width: int, n: int, generator: torch.Generator) -> None:
        super().__init__()
        drawn = linear(width, n, generator) if n else None
        self.weight = nn.Parameter(torch.empty(0, width) if drawn is None else drawn.weight)
        self.bias = nn.Parameter(torch.empty(0) if drawn is None else drawn.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class Head(nn.Module):
    """Tokens `[B, D]` to logits `[B, C]` of the `C` classes seen so far."""

    @abstractmethod
    def grow(self, n: int, generator: torch.Generator) -> None:
        """Add columns for `n` classes, drawn from a generator."""


class LinearHead(Head):
    """One linear layer."""

    def __init__(self, width: int, n_classes: int, generator: torch.Generator) -> None:
        super().__init__()
        self.linear = Columns(width, n_classes, generator)

    def grow(self, n: int, generator: torch.Generator) -> None:
        seen, width = self.linear.weight.shape
        drawn = linear(width, n, generator)
        self.linear.append(seen, weight=drawn.weight, bias=drawn.bias)

    def forward(self, token: Tensor) -> Tensor:
        logits: Tensor = self.linear(token)
        return logits


class NormalisedHead(LinearHead):
    """APT's head: layer norm without learned scale, then weights of unit norm."""

    def __init__(self, width: int, n_classes: int, generator: torch.Generator) -> None:
        super().__init__(width, n_classes, generator)
        self.norm = nn.LayerNorm(width, eps=1e-5).requires_grad_(False)

    def forward(self, token: Tensor) -> Tensor:
        weight = F.normalize(self.linear.weight, dim=1, eps=1e-12)
        return F.linear(self.norm(token), weight, self.linear.bias)


class PrototypeHead(Growing, Head):
    """RanPAC's head: random features of the token times weights that get no gradient.

    Features are `relu(token W)`, with `W` drawn once from a standard normal and not scaled, or the
    token itself.
    """

    grows = {"weight": 0}
    projection: Tensor | None
    weight: Tensor

    def __init__(
        self,
        width: int,
        n_classes: int,
        generator: torch.Generator,
        projection: int | None,
        prototypes: str,
    ) -> None:
        """Draw the projection `[width, projection]`; weights start at 0.

        Args:
            width: width of the token.
            n_classes: initial number of rows of the weights.
            generator: random generator of the projection.
            projection: width `M` of the features; None uses the token itself.
            prototypes: `ridge` (logits are products with the weights) or `mean` (cosine
                similarities).
        """
        super().__init__()
        self.cosine = prototypes == "mean"
        drawn = None if projection is None else torch.randn(width, projection, generator=generator)
        self.register_buffer("projection", drawn)
        self.register_buffer("weight", torch.zeros(n_classes, projection or width))

    def grow(self, n: int, generator: torch.Generator) -> None:
        seen, width = self.weight.shape
        self.append(seen, weight=self.weight.new_zeros(n, width))

    def features(self, token: Tensor) -> Tensor:
        """Return the features `[B, M]` of tokens `[B, D]`."""
        return token if self.projection is None else F.relu(token @ self.projection)

    def forward(self, token: Tensor) -> Tensor:
        features, weight = self.features(token), self.weight
        if self.cosine:
            features, weight = (F.normalize(x, dim=1, eps=1e-12) for x in (features, weight))
        return features @ weight.mT
