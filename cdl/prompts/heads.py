"""Classification heads on one token, over all classes of the stream from the start."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def linear(d_in: int, d_out: int, generator: torch.Generator) -> nn.Linear:
    """Return a linear map whose weight and bias are uniform on +-1/sqrt(d_in) (torch default)."""
    layer = nn.Linear(d_in, d_out)
    bound = 1 / math.sqrt(d_in)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-bound, bound, generator=generator)
    return layer


class LinearHead(nn.Module):
    """One linear layer, tokens `[B, D]` to logits `[B, C]`."""

    def __init__(self, width: int, n_classes: int, generator: torch.Generator) -> None:
        super().__init__()
        self.linear = linear(width, n_classes, generator)

    def forward(self, token: Tensor) -> Tensor:
        logits: Tensor = self.linear(token)
        return logits


class NormalisedHead(LinearHead):
    """APT's head: layer norm without learned change, then weights of unit norm per class."""

    def __init__(self, width: int, n_classes: int, generator: torch.Generator) -> None:
        super().__init__(width, n_classes, generator)
        self.norm = nn.LayerNorm(width, eps=1e-5).requires_grad_(False)

    def forward(self, token: Tensor) -> Tensor:
        weight = F.normalize(self.linear.weight, dim=1, eps=1e-12)
        return F.linear(self.norm(token), weight, self.linear.bias)


class PrototypeHead(nn.Module):
    """RanPAC's head: random features of the token times weights that nobody learns by gradient.

    Features are `relu(token W)` with `W` drawn once, standard normal, unscaled; or the token.
    """

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
            width: of the token.
            n_classes: rows of the weights.
            generator: source of the projection.
            projection: width `M` of the features; None: they are the token.
            prototypes: `ridge` (logits are products with the weights) or `mean` (cosines).
        """
        super().__init__()
        self.cosine = prototypes == "mean"
        drawn = None if projection is None else torch.randn(width, projection, generator=generator)
        self.register_buffer("projection", drawn)
        self.register_buffer("weight", torch.zeros(n_classes, projection or width))

    def features(self, token: Tensor) -> Tensor:
        """Return the features `[B, M]` of tokens `[B, D]`."""
        return token if self.projection is None else F.relu(token @ self.projection)

    def forward(self, token: Tensor) -> Tensor:
        features, weight = self.features(token), self.weight
        if self.cosine:
            features, weight = (F.normalize(x, dim=1, eps=1e-12) for x in (features, weight))
        return features @ weight.mT
