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
