"""Mappings from a teacher's prompts to student prefixes (no released code exists)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from cdl.backbones.vit import KeyValue
from cdl.distillers.base import DistillerContext
from cdl.methods.coda_prompt import ComponentPool, share
from cdl.methods.heads import linear

Prefixes = dict[int, KeyValue]


class AttentionMapping(nn.Module):
    """Attention over a pool, with the mean token of the teacher's prompt as query.

    With the mean token `t` the prefix is `sum_m cos(t * A_m, K_m) V_m`. The pool grows like
    CODA-Prompt's: each task owns the same number of entries.
    """

    def __init__(
        self,
        layers: tuple[int, ...],
        context: DistillerContext,
        length: int,
        coda_growth: str,
        pool: int | None,
        pool_per_task: int | None,
    ) -> None:
        super().__init__()
        assert context.teacher is not None
        self.layers = layers
        self.pool = ComponentPool(
            n_layers=len(layers),
            per_task=share(pool, pool_per_task, context.n_tasks),
            query_width=context.teacher.width,
            length=length,
            width=context.student.width,
            growth=coda_growth,
        )

    def start_task(self, task: int, generator: torch.Generator) -> None:
        """Draw the task's entries."""
        self.pool.grow(task, generator)

    def forward(self, prompts: Prefixes, task: int) -> Prefixes:
        """Map keys and values `[B, L/2, Dt]` of each layer to prefixes of student width."""
        keys, values = self.pool(self._means(prompts), task).chunk(2, dim=2)
        return {layer: (keys[i], values[i]) for i, layer in enumerate(self.layers)}

    def weights(self, prompts: Prefixes, task: int) -> Tensor:
        """Return the weights of all entries, `[layers, B, M]`."""
        return self.pool.weights(self._means(prompts), task)

    def _means(self, prompts: Prefixes) -> Tensor:
        return torch.stack([torch.cat(prompts[layer], dim=1).mean(1) for layer in self.layers])


class SelfAttention(nn.Module):
    """Single-head attention without residual and norm, `[B, n, Dt]` to `[B, n, D]`."""

    def __init__(self, d_in: int, d_out: int, generator: torch.Generator) -> None:
        super().__init__()
        self.q = linear(d_in, d_in, generator)
        self.k = linear(d_in, d_in, generator)
        self.v = linear(d_in, d_out, generator)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.q(x) @ self.k(x).mT / math.sqrt(x.shape[-1])
        mapped: Tensor = scores.softmax(-1) @ self.v(x)
        return mapped


class TokenMapping(nn.Module):
    """One map of tokens per layer, with the same weights for keys and values."""

    kind: Callable[[int, int, torch.Generator], nn.Module]

    def __init__(
        self,
        layers: tuple[int, ...],
        context: DistillerContext,
        length: int,
        coda_growth: str,
        pool: int | None,
        pool_per_task: int | None,
    ) -> None:
        super().__init__()
        assert context.teacher is not None
        widths = context.teacher.width, context.student.width
        self.maps = nn.ModuleDict(
            {str(layer): self.kind(*widths, context.generator) for layer in layers}
        )

    def start_task(self, task: int, generator: torch.Generator) -> None:
        """Do nothing: all tasks share one map."""

    def forward(self, prompts: Prefixes, task: int) -> Prefixes:
        """Map keys and values `[B, L/2, Dt]` of each layer to prefixes of student width."""
        return {
            layer: (self.maps[str(layer)](keys), self.maps[str(layer)](values))
            for layer, (keys, values) in prompts.items()
        }


class SelfAttentionMapping(TokenMapping):
    """Self-attention over the prompt's tokens."""

    kind = SelfAttention


class LinearMapping(TokenMapping):
    """A linear map of every token."""

    kind = staticmethod(linear)


MAPPINGS: dict[str, type[AttentionMapping] | type[TokenMapping]] = {
    "attention": AttentionMapping,
    "self_attention": SelfAttentionMapping,
    "linear": LinearMapping,
}
