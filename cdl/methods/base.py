"""Interface of prompt methods: from a query to prompts and a prompt loss."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cdl.backbones.inside import Inside
from cdl.backbones.vit import KeyValue
from cdl.methods.heads import Head, LinearHead
from cdl.runtime.given import Given

ReadTask = Callable[[Inside], Tensor]  # see `PromptMethod.before_training`


@dataclass(frozen=True)
class Prompts:
    """Prompts of one batch.

    prefixes: keys and values of each layer `[B, L/2, D]`, or `[1, L/2, D]` shared by all samples.
    additions: vectors `[D]` that each layer adds to the class token's key and value.
    losses: prompt loss of each layer, a scalar; empty in eval mode.
    inside: what else enters the blocks, one entry per pass of the backbone; the features of several
        passes are concatenated. Empty: one pass.
    """

    prefixes: dict[int, KeyValue] = field(default_factory=dict)
    additions: dict[int, KeyValue] = field(default_factory=dict)
    losses: dict[int, Tensor] = field(default_factory=dict)
    inside: tuple[Inside, ...] = ()


@dataclass(frozen=True)
class Choice:
    """How much every image of a batch uses every prompt of a method's pools.

    layers: block of each pool.
    weights: `[layers, B, M]`; for methods that select prompts, 1 for a selected prompt and else 0.
    per_task: number of prompts that each task adds to a pool, in order; None if all tasks share
        all prompts.
    """

    layers: tuple[int, ...]
    weights: Tensor
    per_task: int | None = None


@dataclass(frozen=True)
class PromptContext(Given):
    """Arguments that every prompt method is built with.

    width: width `D` of the prompted backbone.
    depth: its number of blocks; prompted layers are smaller than this number.
    query_width: width `Dq` of the query.
    n_tasks: number of tasks of the stream, for methods with the fact `counts_tasks`; None for the
        others, whose results must not depend on later tasks.
    generator: random generator of the initial values.
    """

    width: int
    depth: int
    query_width: int
    n_tasks: int | None
    generator: torch.Generator


class PromptMethod(nn.Module):
    """Learnable prompts of one learner.

    A method draws its initial values from `generator`, so that equal seeds give equal parameters.
    It has no access to the ViT.

    Attributes:
        head: class of the classification head.
        layers: blocks with a prefix.
        reads_task: whether `before_training` and `after_training` use the images of a task.
    """

    head: type[LinearHead] = LinearHead
    layers: tuple[int, ...] = ()
    reads_task: bool = False

    @abstractmethod
    def forward(self, query: Tensor | None, task: int) -> Prompts:
        """Return the prompts of a batch with query `[B, Dq]`; `task` is the latest task."""

    def choice(self, query: Tensor, task: int) -> Choice:
        """Return what a batch with query `[B, Dq]` uses in eval mode; `task` is the latest task.

        For methods with the fact `chooses`.
        """
        raise NotImplementedError

    def make_head(self, width: int, n_classes: int, generator: torch.Generator) -> Head:
        """Return a new head, tokens `[B, width]` to logits `[B, n_classes]`."""
        return self.head(width, n_classes, generator)

    def start_task(self, task: int, generator: torch.Generator) -> None:
        """Prepare for a task; called once before its first step."""

    def before_training(self, task: int, read: ReadTask) -> None:
        """Use the images of a task before its first step, after `start_task`.

        Args:
            task: counted from 0.
            read: function of an `Inside` that runs the backbone with it on the task's images at
                the test view, in eval mode without gradients, and returns their features `[n, D]`.
        """

    def after_training(self, task: int, read: ReadTask) -> None:
        """Use the images of a task after its last step, before `end_task`."""

    def end_task(self, task: int) -> None:
        """Finish a task; called once after its last step."""

    def session(self, task: int) -> bool:
        """Return whether a method with the fact `trains: False` trains before it solves a task."""
        return False

    def session_head(self, width: int, n_classes: int, generator: torch.Generator) -> Head:
        """Return the head of a session, which is discarded after it."""
        raise NotImplementedError

    def undo_merge(self) -> None:
        """Undo the merge of the last `end_task`; for methods with the fact `merges`."""
        raise NotImplementedError


def batch_losses(layers: tuple[int, ...], losses: Tensor, reduction: str) -> dict[int, Tensor]:
    """Reduce per-sample prompt losses `[layers, B]` by `mean` or `sum` over B."""
    reduced = losses.mean(1) if reduction == "mean" else losses.sum(1)
    return dict(zip(layers, reduced, strict=True))


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Return cosines `[..., B, M]` of the rows of `a [B, D]` and `b [..., M, D]`."""
    return F.normalize(a, dim=-1, eps=1e-12) @ F.normalize(b, dim=-1, eps=1e-12).mT


def marked(chosen: Tensor, n: int) -> Tensor:
    """Return 1 at the indices `chosen [layers, B, k]` of `n` prompts, else 0: `[layers, B, n]`."""
    zeros = torch.zeros(*chosen.shape[:-1], n, device=chosen.device)
    return zeros.scatter_(-1, chosen, 1.0)


def halves(layers: tuple[int, ...], prompts: Tensor) -> dict[int, KeyValue]:
    """Split prompts `[layers, B, L, D]` into the keys and values of each layer."""
    keys, values = prompts.chunk(2, dim=2)
    return {layer: (keys[i], values[i]) for i, layer in enumerate(layers)}
