"""EASE (Zhou et al., CVPR 2024): adapters per task, completed prototypes, reweighted logits."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cdl.methods.adapters import Adapters
from cdl.methods.base import PromptContext, PromptMethod, Prompts
from cdl.methods.heads import CosineHead, Head, PrototypeHead, cosines


def complete(weight: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return prototypes `[C, T D]` with the blocks that earlier classes lack.

    Block `j` of a row is the mean feature of the class under the adapters of task `j`. A class of
    task `k` has no images under those of a later task `j`; its block is a mean of block `j` of all
    classes of tasks `j` and later, weighted by the softmax of the cosines of their blocks `k` with
    its own.

    Args:
        weight: rows of the classes of all tasks; what is in the missing blocks is not used.
        sizes: number of classes of each of the `T` tasks.
    """
    blocks = weight.unflatten(1, (len(sizes), -1)).unbind(1)  # T times [C, D]
    completed = [block.clone() for block in blocks]
    for k, size in enumerate(sizes):
        own = slice(sum(sizes[:k]), sum(sizes[:k]) + size)
        for j in range(k + 1, len(sizes)):
            later = slice(sum(sizes[:j]), None)
            similarity = cosines(blocks[k][own], blocks[k][later]).softmax(1)
            completed[j][own] = similarity @ blocks[j][later]
    return torch.cat(completed, dim=1)


def reweighted(features: Tensor, weight: Tensor, sizes: Sequence[int], alpha: float) -> Tensor:
    """Return sums over blocks of cosines, `[n, C]`.

    The block of the class's own task has the weight 1, each of the `t` others `alpha / t`.

    Args:
        features: `[n, T D]`, under the adapters of each of the `T` tasks.
        weight: completed prototypes `[C, T D]`.
        sizes: number of classes of each task.
        alpha: see above.
    """
    parts = zip(features.chunk(len(sizes), 1), weight.chunk(len(sizes), 1), strict=True)
    logits = torch.stack([cosines(*pair) for pair in parts])  # [T, n, C]
    factors = logits.new_full((len(sizes), len(weight)), alpha / max(1, len(sizes) - 1))
    owner = torch.arange(len(sizes)).repeat_interleave(torch.tensor(list(sizes)))
    factors[owner, torch.arange(len(weight))] = 1.0
    return (logits * factors[:, None]).sum(0)


class EaseHead(PrototypeHead):
    """Completed prototypes; the logits are `scale` times `reweighted` cosines."""

    from_sums = False
    sizes: Tensor

    def __init__(
        self, width: int, n_classes: int, generator: torch.Generator, alpha: float, scale: float
    ) -> None:
        """Start without blocks and tasks; `n_classes` columns are unknown until `learn`."""
        super().__init__(width, n_classes, generator, None, "mean", scale=scale)
        self.alpha, self.width = alpha, width
        self.register_buffer("sizes", torch.zeros(0, dtype=torch.int64))

    @torch.no_grad()
    def learn(self, features: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Add the prototypes of a task, and complete those of all tasks.

        Args:
            features: `[n, T D]` of its images under the adapters of all tasks so far.
            targets: `[n, C]` of the classes seen, with ones in the task's columns.
        """
        first = int(self.sizes.sum())
        means = targets[:, first:].mT @ features / targets[:, first:].sum(0)[:, None]
        old = self.weight[:first].to(features)
        old = torch.cat([old, old.new_zeros(first, features.shape[1] - old.shape[1])], dim=1)
        self.sizes = torch.cat([self.sizes, self.sizes.new_full((1,), len(means))])
        rows = torch.cat([old, means.nan_to_num()])
        self.weight = complete(rows, self.sizes.tolist())
        return {}

    def forward(self, token: Tensor) -> Tensor:
        sizes = self.sizes.tolist()
        if token.shape[1] != self.weight.shape[1] or not sizes:  # before `learn`
            return token.new_zeros(len(token), len(self.weight))
        return self.scale * reweighted(token, self.weight, sizes, self.alpha)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        for name in ("weight", "sizes"):
            given = state_dict.get(prefix + name)
            if given is not None:
                setattr(self, name, getattr(self, name).new_empty(given.shape))
        super()._load_from_state_dict(state_dict, prefix, *rest)


class EASE(PromptMethod):
    """New adapters in every task, trained with a head of their own that is discarded.

    Prediction needs a pass per task: a teacher or a reference, not a student to deploy.
    """

    def __init__(
        self,
        context: PromptContext,
        *,
        bottleneck: int = 64,
        scale: float = 0.1,
        dropout: float = 0.1,
        alpha: float = 0.1,
        logit_scale: float = 20.0,
    ) -> None:
        """Start without adapters.

        Args:
            context: the backbone.
            bottleneck: see `cdl.methods.adapters`.
            scale: see `cdl.methods.adapters`.
            dropout: see `cdl.methods.adapters`.
            alpha: weight of the blocks of other tasks, divided by their number.
            logit_scale: factor of the logits.
        """
        super().__init__()
        self._shape = (context.width, context.depth)
        self._options = {"bottleneck": bottleneck, "scale": scale, "dropout": dropout}
        self.alpha, self.logit_scale = alpha, logit_scale
        self.sets = nn.ModuleList()

    def session(self, task: int) -> bool:
        return True

    def session_head(self, width: int, n_classes: int, generator: torch.Generator) -> Head:
        return CosineHead(width, n_classes, generator, scale=1.0, session=True)

    def make_head(self, width: int, n_classes: int, generator: torch.Generator) -> Head:
        return EaseHead(width, n_classes, generator, self.alpha, self.logit_scale)

    def _add(self, source: torch.Generator) -> None:
        self.sets.requires_grad_(False)
        made = Adapters(*self._shape, source, **self._options)  # type: ignore[arg-type]
        self.sets.append(made)

    def start_task(self, task: int, generator: torch.Generator) -> None:
        self._add(generator)

    def forward(self, query: Tensor | None, task: int) -> Prompts:
        sets: Any = self.sets[-1:] if self.training else self.sets
        return Prompts(inside=tuple(adapters.inside() for adapters in sets))

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        start = f"{prefix}sets."
        known = {int(k[len(start) :].split(".")[0]) for k in state_dict if k.startswith(start)}
        while len(self.sets) < len(known):
            self._add(torch.Generator())
        super()._load_from_state_dict(state_dict, prefix, *rest)
