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

    def as_linear(self) -> tuple[Tensor, Tensor] | None:
        """Return weight `[C, D]` and bias `[C]` of the same map; None if it is not linear."""
        return None


class LinearHead(Head):
    """One linear layer."""

    def __init__(self, width: int, n_classes: int, generator: torch.Generator) -> None:
        super().__init__()
        self.linear = Columns(width, n_classes, generator)

    def grow(self, n: int, generator: torch.Generator) -> None:
        seen, width = self.linear.weight.shape
        drawn = linear(width, n, generator)
        self.linear.append(seen, weight=drawn.weight, bias=drawn.bias)

    def as_linear(self) -> tuple[Tensor, Tensor] | None:
        return self.linear.weight, self.linear.bias

    def forward(self, token: Tensor) -> Tensor:
        logits: Tensor = self.linear(token)
        return logits


class NormalisedHead(LinearHead):
    """APT's head: layer norm without learned scale, then weights of unit norm."""

    def __init__(self, width: int, n_classes: int, generator: torch.Generator) -> None:
        super().__init__(width, n_classes, generator)
        self.norm = nn.LayerNorm(width, eps=1e-5).requires_grad_(False)

    def as_linear(self) -> None:
        return None

    def forward(self, token: Tensor) -> Tensor:
        weight = F.normalize(self.linear.weight, dim=1, eps=1e-12)
        return F.linear(self.norm(token), weight, self.linear.bias)


class CosineHead(Growing, Head):
    """`scale` times the cosines of a token with the rows of the weights, without bias.

    Attributes:
        margin: what cross-entropy subtracts from the logit of the label: `scale` times a cosine.
    """

    grows = {"weight": 0}

    def __init__(
        self,
        width: int,
        n_classes: int,
        generator: torch.Generator,
        *,
        scale: float = 20.0,
        margin: float = 0.0,
        session: bool = False,
    ) -> None:
        """Draw the rows from a normal of std 0.02, truncated at +-2.

        Args:
            width: width of the token.
            n_classes: initial number of rows.
            generator: random generator.
            scale: factor of the cosines.
            margin: cosine that is subtracted from that of the label in cross-entropy.
            session: whether it is the head of a first session (APER, RanPAC): `scale` is learnt,
                and rows are uniform on +-1/sqrt(D).
        """
        super().__init__()
        self.session, self.margin = session, scale * margin
        self.scale: nn.Parameter | float = nn.Parameter(torch.tensor([scale])) if session else scale
        self.weight = nn.Parameter(torch.empty(0, width))
        self.grow(n_classes, generator)

    def grow(self, n: int, generator: torch.Generator) -> None:
        rows = torch.empty(n, self.weight.shape[1])
        if self.session:
            bound = 1 / math.sqrt(rows.shape[1])
            rows.uniform_(-bound, bound, generator=generator)
        elif n:
            nn.init.trunc_normal_(rows, std=0.02, a=-2, b=2, generator=generator)
        self.append(len(self.weight), weight=rows)

    def forward(self, token: Tensor) -> Tensor:
        return self.scale * cosines(token, self.weight)


def cosines(token: Tensor, weight: Tensor) -> Tensor:
    """Return the cosines `[B, C]` of tokens `[B, D]` and rows `[C, D]`."""
    token, weight = (F.normalize(x, dim=1, eps=1e-12) for x in (token, weight))
    return token @ weight.mT


class PrototypeHead(Growing, Head):
    """RanPAC's head: random features of the token times weights that get no gradient.

    Features are `relu(token W)`, with `W` drawn once from a standard normal and not scaled, or the
    token itself.
    """

    grows = {"weight": 0}
    from_sums = True  # whether the weights are computed from sums over tasks, or by `learn`
    inverses = 0  # matrices [M, M] that the last `learn` has inverted
    projection: Tensor | None
    weight: Tensor
    scale: Tensor | float

    def __init__(
        self,
        width: int,
        n_classes: int,
        generator: torch.Generator,
        projection: int | None,
        prototypes: str,
        *,
        scale: float = 1.0,
        learnt_scale: bool = False,
        cosine_ridge: bool = False,
        keeps_gram: bool = True,
        ridge_images: str = "last",
    ) -> None:
        """Draw the projection `[width, projection]`; weights start at 0.

        Args:
            width: width of the token.
            n_classes: initial number of rows of the weights.
            generator: random generator of the projection.
            projection: width `M` of the features; None uses the token itself.
            prototypes: `ridge` (logits are products with the weights) or `mean` (cosine
                similarities).
            scale: factor of the logits.
            learnt_scale: whether `scale` is that of the head of a first session, see `adopt`.
            cosine_ridge: whether the logits of `ridge` are cosines, too.
            keeps_gram: whether an artifact contains the Gram matrix.
            ridge_images: the ridge is chosen on images of the `last` task or of `all` tasks.
        """
        super().__init__()
        self.ridge = prototypes == "ridge"
        self.cosine = cosine_ridge or not self.ridge
        self.keeps_gram, self.ridge_images = keeps_gram, ridge_images
        drawn = None if projection is None else torch.randn(width, projection, generator=generator)
        self.register_buffer("projection", drawn)
        self.register_buffer("weight", torch.zeros(n_classes, projection or width))
        if learnt_scale:
            self.register_buffer("scale", torch.tensor([scale]))
        else:
            self.scale = scale

    def adopt(self, session: Head) -> None:
        """Keep the learnt scale of a session's head, if this head has one."""
        if isinstance(self.scale, Tensor) and isinstance(session, CosineHead):
            self.scale.copy_(torch.as_tensor(session.scale).detach())

    def grow(self, n: int, generator: torch.Generator) -> None:
        seen, width = self.weight.shape
        self.append(seen, weight=self.weight.new_zeros(n, width))

    def learn(self, features: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Learn a task from features `[n, M]` and targets `[n, C]`, unless `from_sums`.

        Returns:
            What an artifact keeps of the task's classes for a student that learns on, `[C, ...]`.
        """
        raise NotImplementedError

    def as_linear(self) -> tuple[Tensor, Tensor] | None:
        if self.projection is not None or self.cosine:
            return None
        return self.scale * self.weight, self.weight.new_zeros(len(self.weight))

    def features(self, token: Tensor) -> Tensor:
        """Return the features `[B, M]` of tokens `[B, D]`."""
        return token if self.projection is None else F.relu(token @ self.projection)

    def forward(self, token: Tensor) -> Tensor:
        features = self.features(token)
        logits = cosines(features, self.weight) if self.cosine else features @ self.weight.mT
        return logits if isinstance(self.scale, float) and self.scale == 1 else logits * self.scale
