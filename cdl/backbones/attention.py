"""Inject prompts and distillers' prefixes into attention, in every timm family.

Prefix tuning extends keys and values but not queries, `softmax(q [P_K; k]^T) [P_V; v]`, so the
number of tokens does not change. Prefixes are added where timm calls
`scaled_dot_product_attention`: after the split into heads, the norms of queries and keys, and the
rotation. So norms and rotary embeddings apply to the model's own tokens only, and timm's code of
each family runs unchanged.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import FunctionType, MethodType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cdl.backbones.inside import CLOSED, Inside
from cdl.backbones.kernels import PRODUCTS, kernels

KeyValue = tuple[Tensor, Tensor]
_ATTENTION = "scaled_dot_product_attention"


@dataclass(frozen=True)
class Injection:
    """Prompts that are injected into the attention of the blocks, by block index.

    prefixes: keys and values `[B, L, D]`, or `[1, L, D]` shared by all samples, before those of
        the tokens.
    suffixes: keys and values `[L, D]`, shared by all samples, after those of the tokens.
    additions: vectors `[D]` added to the class token's key and value (APT).
    token: `[1, D]`, appended as the last token before block 0 (the KD token).
    inside: what enters the blocks at other places.
    """

    prefixes: Mapping[int, KeyValue] = field(default_factory=dict)
    suffixes: Mapping[int, KeyValue] = field(default_factory=dict)
    additions: Mapping[int, KeyValue] = field(default_factory=dict)
    token: Tensor | None = None
    inside: Inside = CLOSED

    def first(self, depth: int) -> int:
        """Return the first of `depth` blocks with an injection; `depth` if there is none."""
        if self.token is not None or self.inside.affine:
            return 0
        changed = (*self.prefixes, *self.suffixes, *self.additions, *self.inside.layers())
        return min(changed, default=depth)


class AttentionInjector:
    """Attention function of one block, which adds the injection."""

    def __init__(self) -> None:
        self._pairs: tuple[KeyValue | None, ...] = (None, None, None)
        self._calls = 0

    def set(self, injection: Injection, layer: int) -> None:
        """Use the injection of a layer in the calls that follow."""
        parts = (injection.prefixes, injection.additions, injection.suffixes)
        self._pairs, self._calls = tuple(part.get(layer) for part in parts), 0

    def clear(self) -> None:
        """Inject nothing in the calls that follow, and release the tensors."""
        self._pairs = (None, None, None)

    def __deepcopy__(self, memo: object) -> "AttentionInjector":
        return self  # the `forward` of a copied block refers to this object

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        """Attend with queries, keys and values `[B, heads, N, d]` and the injection.

        A mask `attn_mask [..., N, N]` hides no injected key, see `widened`.
        """
        mask = options.get("attn_mask")
        if mask is not None:
            added = self._added()
            options["attn_mask"] = widened(mask, query.shape[2], key.shape[2], *added)
        if any(pair is not None for pair in self._pairs):
            key, value = self._extend(0, key), self._extend(1, value)
            self._calls += 1
        more = any(options.get(name) for name in ("dropout_p", "is_causal", "scale"))
        plain = options.get("attn_mask") is None and not more
        if plain and query.dtype == torch.bfloat16 and query.device.type == "cpu":
            if kernels().attention == PRODUCTS:
                return by_products(query, key, value)
        return F.scaled_dot_product_attention(query, key, value, **options)

    def _added(self) -> tuple[int, int]:
        """Return how many keys are injected before and after those of the tokens."""
        prefix, _, suffix = self._pairs
        before, after = (0 if p is None else p[0].shape[-2] for p in (prefix, suffix))
        return before, after

    def _extend(self, which: int, own: Tensor) -> Tensor:
        """Return the keys (`which` is 0) or values (1) with the injection."""
        before, addition, after = (
            None if pair is None else self._split_heads(pair[which], own) for pair in self._pairs
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

    def _split_heads(self, prompt: Tensor, own: Tensor) -> Tensor:
        """Split `[..., D]` into the heads of `own [B, heads, N, d]`.

        Differential attention makes two calls, one for each half of a head's keys.
        """
        heads, d = own.shape[1], own.shape[3]
        parts = prompt.shape[-1] // (heads * d)
        split = prompt.unflatten(-1, (heads, parts * d))
        chosen: Tensor = split if parts == 1 else split.chunk(parts, -1)[self._calls % parts]
        return chosen


def widened(mask: Tensor, queries: int, keys: int, before: int, after: int) -> Tensor:
    """Return a mask for injected keys and appended tokens, none of which it hides.

    Args:
        mask: `[..., N or 1, N]`, bool (False hides) or float (added to the scores).
        queries: number of tokens, `N` or more if tokens were appended to those of the mask.
        keys: number of their keys.
        before: number of keys that are injected before those of the tokens.
        after: number of keys that are injected after them.
    """
    boolean = mask.dtype == torch.bool
    if 1 < mask.shape[-2] < queries:  # an appended token sees what any token sees
        row = mask.any(-2, keepdim=True) if boolean else mask.amax(-2, keepdim=True)
        mask = torch.cat([mask, *[row] * (queries - mask.shape[-2])], dim=-2)
    more = (before, keys - mask.shape[-1] + after)
    return F.pad(mask, more, value=float(boolean)) if any(more) else mask


def by_products(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend by two products and a softmax, `[B, heads, N, d]`; for bf16 on a CPU.

    With AVX512-BF16 torch's fused kernel takes two to five times as long, because it does not use
    the bf16 units well; in fp32, and on a GPU, the fused kernel is faster (benchmarks/README.md).
    `kernels` has the choice for other CPUs.
    """
    weights = ((query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)).softmax(-1)
    attended: Tensor = weights @ value
    return attended


def attentions(block: nn.Module) -> list[nn.Module]:
    """Return the modules of a block, or the block itself, that attend to all tokens."""
    return [
        module for module in block.modules() if _ATTENTION in type(module).forward.__code__.co_names
    ]


def injector_of(block: nn.Module) -> AttentionInjector:
    """Return a block's injector; the first call installs it in all its attentions.

    Their `forward` keeps timm's code object; its global `F` has one function replaced.
    """
    # A TorchFunctionMode gives equal bits, but it intercepts every operation: on a CPU a step of
    # the smallest ViT takes 3 % longer (median of 280 pairs of steps) and its forward pass 7 %.
    injector = block.__dict__.get("attention_injector")
    if isinstance(injector, AttentionInjector):
        return injector
    injector = AttentionInjector()
    functions = SimpleNamespace(**{**vars(F), _ATTENTION: injector})
    for module in attentions(block):
        code = type(module).forward
        forward = FunctionType(
            code.__code__, {**code.__globals__, "F": functions}, code.__name__, code.__defaults__
        )
        forward.__kwdefaults__ = code.__kwdefaults__
        object.__setattr__(module, "forward", MethodType(forward, module))
        object.__setattr__(module, "fused_attn", True)  # also if TIMM_FUSED_ATTN is 0
    object.__setattr__(block, "attention_injector", injector)
    return injector
