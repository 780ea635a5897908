"""InfLoRA (Liang and Li, CVPR 2024): branches in directions that earlier tasks do not use."""

import math
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from cdl.backbones.inside import Inside
from cdl.methods.base import PromptContext, PromptMethod, Prompts, ReadTask
from cdl.methods.growing import Growing
from cdl.methods.low_rank import branches

PARTS = ("k", "v")


class Moments:
    """Uncentred second moments `mean a a^T` of the inputs of all blocks' projections."""

    def __init__(self, width: int, depth: int) -> None:
        """Start with no tokens."""
        self._sums = {layer: torch.zeros(width, width) for layer in range(depth)}
        self._counts = dict.fromkeys(range(depth), 0)

    def add(self, layer: int, a: Tensor) -> None:
        """Add the tokens `a [B, N, D]` of a block."""
        rows = a.detach().flatten(0, -2).float()
        self._sums[layer] = self._sums[layer].to(rows.device) + rows.mT @ rows
        self._counts[layer] += len(rows)

    def matrices(self) -> Tensor:
        """Return the moments, `[depth, D, D]`, on the CPU."""
        means = [self._sums[layer] / n for layer, n in self._counts.items()]
        return torch.stack(means).cpu()


def design(moments: Tensor, projector: Tensor, retain: bool, rank: int, first: bool) -> Tensor:
    """Return the constant `down [r, D]` of a block.

    The rows are leading left singular vectors of the moments without the directions in the memory
    (`retain`: with these alone), divided by sqrt 3.

    Args:
        moments: `H [D, D]`.
        projector: `P [D, D]` of the memory.
        retain: type of the memory.
        rank: number of rows `r`.
        first: whether there is no memory yet.
    """
    h, p = moments.double(), projector.double()
    x = h if first else p @ h if retain else h - p @ h
    left: Tensor = torch.linalg.svd(x)[0]
    return (left[:, :rank].mT / math.sqrt(3)).float()


def update_memory(
    moments: Tensor,
    projector: Tensor,
    retain: bool,
    threshold: float,
    *,
    first: bool,
    as_released: bool,
) -> tuple[Tensor, bool]:
    """Return projector and type of a block's memory after a task (DualGPM, CVPR 2023).

    A memory of the type remove spans the directions that later tasks must not use, one of the type
    retain those that they may use. All shares are of energies: the eigenvalues of
    `(I - P) H (I - P)` or `P H P`, as in GPM on the data `X` with `H = X X^T / n`; as released they
    are the squared singular values of `(I - P) H` or `P H`, which are fourth powers of the data's.

    Args:
        moments: `H [D, D]` of the task's images, after its training.
        projector: `P [D, D]` before the task.
        retain: type before the task.
        threshold: share of the energy that a memory of the type remove has to span.
        first: whether this is the first task.
        as_released: see above.
    """
    h, p = moments.double(), projector.double()
    width, eye = len(h), torch.eye(len(h), dtype=h.dtype)
    inner = eye if first else p if retain else eye - p
    left, values, _ = torch.linalg.svd(inner @ h if as_released else inner @ h @ inner)
    energies = values**2 if as_released else values
    total = h.square().sum() if as_released else h.trace()
    shares = energies.cumsum(0) / total
    if first:
        n = max(1, int((shares < threshold).sum()))
        return (left[:, :n] @ left[:, :n].mT).float(), n >= width / 2
    if retain:
        left_over = energies.sum() / total - torch.cat([shares.new_zeros(1), shares])
        n, size = int((left_over >= 1 - threshold).sum()), round(float(p.trace()))
        if n:
            kept = p - left[:, :n] @ (left[:, :n].mT @ p)
            basis = torch.linalg.svd(kept)[0][:, : max(0, size - n)]
            p = basis @ basis.mT
        return p.float(), True
    spanned = 1 - energies.sum() / total
    n = int((spanned + torch.cat([shares.new_zeros(1), shares]) < threshold).sum())
    p = p + left[:, :n] @ left[:, :n].mT
    if round(float(p.trace())) > width / 2:
        return (eye - p).float(), True
    return p.float(), False


class InfLoRA(Growing, PromptMethod):
    """Branches on keys and values; each task learns its own `up` for a constant `down`.

    `down` of a task is computed before its training from the moments of the projections' inputs,
    so that the branch does not act on the inputs of earlier tasks; keys and values have the same.
    """

    grows = {"past_down": 2, "past_up": 3}
    reads_task = True
    past_down: Tensor
    past_up: Tensor
    down: Tensor
    projector: Tensor
    retain: Tensor

    def __init__(
        self,
        context: PromptContext,
        *,
        rank: int = 10,
        first_share: float = 0.95,
        last_share: float = 1.0,
        sessions: int = 10,
        as_released: bool = False,
    ) -> None:
        """Start all branches at 0.

        Args:
            context: the backbone.
            rank: rank `r` of a task's branch.
            first_share: share of the energy that the memory spans after task 0 (`lamb`).
            last_share: the share after `sessions` tasks, never reached (`lame`).
            sessions: number of tasks over which the share rises; later tasks keep the last one.
            as_released: whether energies are squares of the moments' singular values, which are
                fourth powers of the data's, so that the memory is smaller than GPM's.
        """
        super().__init__()
        self.rank, self.sessions, self.as_released = rank, sessions, as_released
        self.shares = (first_share, last_share)
        depth, width = context.depth, context.width
        self.up = nn.Parameter(torch.zeros(len(PARTS), depth, width, rank))
        self.register_buffer("down", torch.zeros(len(PARTS), depth, rank, width))
        self.register_buffer("past_down", torch.zeros(len(PARTS), depth, 0, width))
        self.register_buffer("past_up", torch.zeros(len(PARTS), depth, width, 0))
        self.register_buffer("projector", torch.zeros(depth, width, width))
        self.register_buffer("retain", torch.zeros(depth, dtype=torch.bool))

    @property
    def inside(self) -> Inside:
        """The branches of all tasks so far."""
        down = torch.cat([self.past_down, self.down], dim=2)
        return branches(PARTS, down, torch.cat([self.past_up, self.up], dim=3))

    def forward(self, query: Tensor | None, task: int) -> Prompts:
        return Prompts(inside=(self.inside,))

    def threshold(self, task: int) -> float:
        """Return the share of the energy that the memory spans after a task."""
        first, last = self.shares
        return (last - first) * min(task, self.sessions - 1) / self.sessions + first

    @torch.no_grad()
    def start_task(self, task: int, generator: torch.Generator) -> None:
        if task:
            self.append(self.past_down.shape[2], past_down=self.down)
            self.append(self.past_up.shape[3], past_up=self.up)
        self.up.zero_()

    def moments(self, read: ReadTask) -> Tensor:
        """Return the second moments of the task's images under the current branches."""
        depth, width = self.projector.shape[:2]
        moments = Moments(width, depth)
        watch = {layer: partial(moments.add, layer) for layer in range(depth)}
        read(replace(self.inside, watch=watch))
        return moments.matrices()

    @torch.no_grad()
    def before_training(self, task: int, read: ReadTask) -> None:
        rows = zip(self.moments(read), self.projector.cpu(), self.retain.tolist(), strict=True)
        down = [design(h, p, retain, self.rank, task == 0) for h, p, retain in rows]
        self.down.copy_(torch.stack(down).expand_as(self.down))

    @torch.no_grad()
    def after_training(self, task: int, read: ReadTask) -> None:
        share = self.threshold(task)
        memory = zip(self.moments(read), self.projector.cpu(), self.retain.tolist(), strict=True)
        for layer, (h, p, retain) in enumerate(memory):
            p, retain = update_memory(
                h, p, retain, share, first=task == 0, as_released=self.as_released
            )
            self.projector[layer].copy_(p)
            self.retain[layer] = retain
