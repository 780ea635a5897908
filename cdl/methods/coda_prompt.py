"""CODA-Prompt (Smith et al., CVPR 2023): a weighted sum of prompt components."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cdl.methods.base import Choice, PromptContext, PromptMethod, Prompts, halves
from cdl.methods.growing import Growing


def share(pool: int | None, pool_per_task: int | None, n_tasks: int | None) -> int:
    """Return a task's components: `pool_per_task`, or `floor(pool / n_tasks)`."""
    if pool is None:
        assert pool_per_task is not None, "pool or pool_per_task is set"
        return pool_per_task
    assert n_tasks is not None, "a shared pool needs the number of tasks"
    return pool // n_tasks


class ComponentPool(Growing):
    """Components with attention and key vectors, the same number for each task.

    For a query `q [B, Dq]` the output of a layer is `sum_m cos(q * A_m, K_m) P_m`. At task `t` the
    sum runs over the components of tasks `0..t`; those of earlier tasks get no gradient.
    """

    grows = {"key": 1, "attention": 1, "prompt": 1}

    def __init__(
        self,
        *,
        n_layers: int,
        per_task: int,
        query_width: int,
        length: int,
        width: int,
        growth: str,
    ) -> None:
        """Create an empty pool.

        Args:
            n_layers: number of independent pools, one per prompted layer.
            per_task: number of components of each task.
            query_width: width `Dq` of keys and attention vectors.
            length: number of tokens `L` of a component.
            width: width `D` of a token.
            growth: `exact` projects new rows on the complement of the earlier ones (QR);
                `gram_schmidt`, the released form, subtracts one projection per row. The earlier
                rows are no longer orthogonal after training, so its result is not either.
        """
        super().__init__()
        self.per_task, self.growth = per_task, growth
        self.key = nn.Parameter(torch.zeros(n_layers, 0, query_width))
        self.attention = nn.Parameter(torch.zeros(n_layers, 0, query_width))
        self.prompt = nn.Parameter(torch.zeros(n_layers, 0, length, width))

    def used(self, task: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return keys, attentions and prompts of tasks `0..task`, earlier ones detached."""
        start = task * self.per_task
        stop = start + self.per_task
        if not self.training:
            return self.key[:, :stop], self.attention[:, :stop], self.prompt[:, :stop]
        key, attention, prompt = (
            torch.cat([rows[:, :start].detach(), rows[:, start:stop]], dim=1)
            for rows in (self.key, self.attention, self.prompt)
        )
        return key, attention, prompt

    def weights(self, query: Tensor, task: int) -> Tensor:
        """Return `cos(q * A, K)`, `[layers, B, M]`.

        Queries are `[B, Dq]` or `[layers, B, Dq]`.
        """
        key, attention, _ = self.used(task)
        # two matrix products over Dq avoid a tensor [B, M, Dq]
        product = query @ (attention * F.normalize(key, dim=-1, eps=1e-12)).mT
        norm = (query.square() @ attention.square().mT).clamp_min(1e-24).sqrt()
        return product / norm

    def forward(self, query: Tensor, task: int) -> Tensor:
        """Return prompts `[layers, B, L, D]` for queries as in `weights`."""
        return torch.einsum("ybm,ymld->ybld", self.weights(query, task), self.used(task)[2])

    def penalty(self, task: int) -> Tensor:
        """Return `sum_{X in K, A, P} mean((X X^T - I)^2)` of each layer, `[layers]`."""
        total = torch.zeros(len(self.key), device=self.key.device)
        for rows in self.used(task):
            flat = rows.flatten(2)
            gram = flat @ flat.mT - torch.eye(flat.shape[1], device=flat.device)
            total = total + gram.square().mean((1, 2))
        return total

    @torch.no_grad()
    def grow(self, task: int, generator: torch.Generator) -> None:
        """Draw the components of a task, of unit norm and orthogonal to all earlier ones."""
        start, grown = task * self.per_task, {}
        for name in self.grows:
            rows = getattr(self, name)
            new = [
                _GROWTH[self.growth](layer[:start].flatten(1).cpu(), self.per_task, generator)
                for layer in rows
            ]
            grown[name] = torch.stack(new).view(len(rows), self.per_task, *rows.shape[2:])
        self.append(start, **grown)


def _exact(old: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Return `n` unit rows orthogonal to each other and to the span of `old [s, D]`."""
    drawn = torch.randn(n, old.shape[1], generator=generator, dtype=torch.float64)
    basis: Tensor = torch.linalg.qr(torch.cat([old.double(), drawn]).mT).Q
    return basis.mT[len(old) :].to(old.dtype)


def _gram_schmidt(old: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Return `n` unit rows; all projections are computed from the row as drawn."""
    rows = list(old)
    while len(rows) < len(old) + n:
        drawn = torch.randn(old.shape[1], generator=generator)
        new = drawn
        for row in rows:
            new = new - (drawn @ row) / (row @ row) * row
        if new @ new >= 1e-8:
            rows.append(new)
    return F.normalize(torch.stack(rows[len(old) :]), dim=1)


_GROWTH = {"exact": _exact, "gram_schmidt": _gram_schmidt}


class CodaPrompt(PromptMethod):
    """Decomposed attention-based prompts in the first blocks."""

    def __init__(
        self,
        context: PromptContext,
        *,
        pool: int | None = None,
        pool_per_task: int | None = None,
        length: int = 8,
        ortho_weight: float = 0.0,
        layers: tuple[int, ...] = (0, 1, 2, 3, 4),
        coda_growth: str = "exact",
    ) -> None:
        """Create an empty pool; `start_task` draws the components of each task.

        Args:
            context: backbone, query and stream.
            pool: number of components of all tasks together, at most `min(Dq, L D)`; None if
                `pool_per_task` is given.
            pool_per_task: number of components of each task; the total grows with the tasks.
            length: number of tokens `L` of a component, even: half keys, half values.
            ortho_weight: weight `mu` of the orthogonality penalty.
            layers: prompted blocks.
            coda_growth: see `ComponentPool`.
        """
        super().__init__()
        self.layers, self.ortho_weight = tuple(layers), ortho_weight
        self.pool = ComponentPool(
            n_layers=len(self.layers),
            per_task=share(pool, pool_per_task, context.n_tasks),
            query_width=context.query_width,
            length=length,
            width=context.width,
            growth=coda_growth,
        )

    def forward(self, query: Tensor | None, task: int) -> Prompts:
        losses = {}
        if self.training and self.ortho_weight:
            penalty = self.ortho_weight * self.pool.penalty(task)
            losses = dict(zip(self.layers, penalty, strict=True))
        return Prompts(halves(self.layers, self.pool(query, task)), losses=losses)

    def choice(self, query: Tensor, task: int) -> Choice:
        return Choice(self.layers, self.pool.weights(query, task), self.pool.per_task)

    def start_task(self, task: int, generator: torch.Generator) -> None:
        self.pool.grow(task, generator)
