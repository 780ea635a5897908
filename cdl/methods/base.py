"""What every prompt method is: a query in, what enters the attention and a prompt loss out."""

from abc import abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cdl.backbones.vit import KeyValue
from cdl.methods.heads import Head, LinearHead


@dataclass(frozen=True)
class Prompts:
    """One batch's prompts.

    prefixes: by layer, keys and values `[B, L/2, D]`, or `[1, L/2, D]` the same for all samples.
    additions: by layer, vectors `[D]` for the class token's key and value.
    losses: by layer, the prompt loss, a scalar; empty in eval mode.
    """

    prefixes: dict[int, KeyValue] = field(default_factory=dict)
    additions: dict[int, KeyValue] = field(default_factory=dict)
    losses: dict[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class PromptContext:
    """What a prompt method may know when it is built.

    width: width `D` of the backbone that the prompts enter.
    depth: its number of blocks; prompted layers lie below.
    query_width: width `Dq` of the query.
    n_tasks: tasks of the stream, for methods whose facts say `counts_tasks`; else None: what is
        learnt depends on the tasks so far alone.
    generator: source of the start.
    """

    width: int
    depth: int
    query_width: int
    n_tasks: int | None
    generator: torch.Generator


class PromptMethod(nn.Module):
    """Learnable prompts of one learner.

    A method draws its start from `generator`, so that equal keys give equal parameters, and
    never sees the ViT.

    Attributes:
        head: the kind of classification head that the method uses.
        layers: blocks that get a prefix.
    """

    head: type[LinearHead] = LinearHead
    layers: tuple[int, ...] = ()

    @abstractmethod
    def forward(self, query: Tensor | None, task: int) -> Prompts:
        """Return the prompts of a batch from its query `[B, Dq]` while `task` is the latest."""

    def make_head(self, width: int, n_classes: int, generator: torch.Generator) -> Head:
        """Return a head of the method's kind, tokens `[B, width]` to logits `[B, n_classes]`."""
        return self.head(width, n_classes, generator)

    def start_task(self, task: int, generator: torch.Generator) -> None:
        """Prepare for learning a task; called once before its first step."""

    def end_task(self, task: int) -> None:
        """Finish a task; called once after its last step."""

    def undo_merge(self) -> None:
        """Undo what the last `end_task` merged; only for methods whose facts say `merges`."""
        raise NotImplementedError


def batch_losses(layers: tuple[int, ...], losses: Tensor, reduction: str) -> dict[int, Tensor]:
    """Reduce per-sample prompt losses `[layers, B]` by `mean` or `sum` over B."""
    reduced = losses.mean(1) if reduction == "mean" else losses.sum(1)
    return dict(zip(layers, reduced, strict=True))


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Return cosines `[..., B, M]` between rows of `a [B, D]` and `b [..., M, D]`."""
    return F.normalize(a, dim=-1, eps=1e-12) @ F.normalize(b, dim=-1, eps=1e-12).mT


def halves(layers: tuple[int, ...], prompts: Tensor) -> dict[int, KeyValue]:
    """Split prompts `[layers, B, L, D]` into the keys and values of each layer."""
    keys, values = prompts.chunk(2, dim=2)
    return {layer: (keys[i], values[i]) for i, layer in enumerate(layers)}
