"""The one place where prompts and a distiller's prefixes enter attention, in every family of timm.

Prefix tuning joins keys and values and never the queries, `softmax(q [P_K; k]^T) [P_V; v]`, so the
number of tokens does not change. They enter where timm calls `scaled_dot_product_attention`: split
into heads, after the norms of queries and keys, after rotation. So rotary positions and norms are
for the model's own tokens only, and timm's code of each family runs as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import FunctionType, MethodType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KeyValue = tuple[Tensor, Tensor]
_CALLED = "scaled_dot_product_attention"


@dataclass(frozen=True)
class Injection:
    """What enters the attention of the blocks, by block index.

    prefixes: keys and values `[B, L, D]`, or `[1, L, D]` the same for all samples, put before
        those of the tokens.
    suffixes: keys and values `[L, D]`, the same for all samples, put after them.
    additions: vectors `[D]` added to the class token's key and value (APT).
    token: `[1, D]`, appended as the last token before block 0 (the KD token).
    """

    prefixes: Mapping[int, KeyValue] = field(default_factory=dict)
    suffixes: Mapping[int, KeyValue] = field(default_factory=dict)
    additions: Mapping[int, KeyValue] = field(default_factory=dict)
    token: Tensor | None = None

    def first(self, depth: int) -> int:
        """Return the first of `depth` blocks that something enters, `depth` if nothing does."""
        if self.token is not None:
            return 0
        return min((*self.prefixes, *self.suffixes, *self.additions), default=depth)


class Entrance:
    """Stands in a block's attention where timm calls `scaled_dot_product_attention`."""

    def __init__(self) -> None:
        self._entering: tuple[KeyValue | None, ...] = (None, None, None)
        self._calls = 0

    def open(self, injection: Injection, layer: int) -> None:
        """Let in what an injection holds for a layer."""
        parts = (injection.prefixes, injection.additions, injection.suffixes)
        self._entering, self._calls = tuple(part.get(layer) for part in parts), 0

    def close(self) -> None:
        """Let in nothing and hold nothing."""
        self._entering = (None, None, None)

    def __deepcopy__(self, memo: object) -> "Entrance":
        return self  # the code of a copied block calls this one

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        """Attend with queries, keys and values `[B, heads, N, d]`, and with what enters."""
        if any(pair is not None for pair in self._entering):
            key, value = self._joined(0, key), self._joined(1, value)
            self._calls += 1
        more = any(options.get(name) for name in ("dropout_p", "is_causal", "scale"))
        plain = options.get("attn_mask") is None and not more
        if plain and query.dtype == torch.bfloat16 and query.device.type == "cpu":
            return by_products(query, key, value)
        return F.scaled_dot_product_attention(query, key, value, **options)

    def _joined(self, which: int, own: Tensor) -> Tensor:
        """Return keys (0) or values (1) with all that enters."""
        before, addition, after = (
            None if pair is None else self._in_heads(pair[which], own) for pair in self._entering
        )
        tokens = [own.transpose(1, 2)]  # [B, N, heads, d]
        if addition is not None:
            (rest,) = tokens
            tokens = [(rest[:, :1] + addition).to(own.dtype), rest[:, 1:]]
        if before is not None:
            tokens.insert(0, before.to(own.dtype).expand(own.shape[0], -1, -1, -1))
        if after is not None:
            tokens.append(after.expand(own.shape[0], -1, -1, -1).to(own.dtype))
        return torch.cat(tokens, dim=1).transpose(1, 2)

    def _in_heads(self, given: Tensor, own: Tensor) -> Tensor:
        """Split `[..., D]` into the heads of `own [B, heads, N, d]`.

        Differential attention reads a head's keys in two calls, the first and second half of it.
        """
        heads, d = own.shape[1], own.shape[3]
        parts = given.shape[-1] // (heads * d)
        split = given.unflatten(-1, (heads, parts * d))
        chosen: Tensor = split if parts == 1 else split.chunk(parts, -1)[self._calls % parts]
        return chosen


def by_products(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend by two products and a softmax, `[B, heads, N, d]`: in bf16 on a CPU the fast way.

    torch's fused kernel takes two to five times as long there, because it does not use the CPU's
    bf16 units well; in fp32, and on a GPU, it is the faster one (docs/performance.md).
    """
    weights = ((query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)).softmax(-1)
    attended: Tensor = weights @ value
    return attended


def attentions(block: nn.Module) -> list[nn.Module]:
    """Return the modules of a block, or the block itself, whose code attends to all tokens."""
    return [
        module for module in block.modules() if _CALLED in type(module).forward.__code__.co_names
    ]


def entrance(block: nn.Module) -> Entrance:
    """Return a block's entrance; the first call opens one in each of its attentions.

    Their `forward` is timm's own code, which finds an `F` of its own with one function replaced.
    """
    made = block.__dict__.get("entrance")
    if isinstance(made, Entrance):
        return made
    made = Entrance()
    functions = SimpleNamespace(**{**vars(F), _CALLED: made})
    for module in attentions(block):
        code = type(module).forward
        forward = FunctionType(
            code.__code__, {**code.__globals__, "F": functions}, code.__name__, code.__defaults__
        )
        forward.__kwdefaults__ = code.__kwdefaults__
        object.__setattr__(module, "forward", MethodType(forward, module))
        object.__setattr__(module, "fused_attn", True)  # whatever TIMM_FUSED_ATTN says
    object.__setattr__(block, "entrance", made)
    return made
