"""Running timm's own ViT blocks with what prompts and distillers put into their attention.

Prefix tuning joins keys and values after the projection, `softmax(q [P_K; k]^T) [P_V; v]`, and
never the queries, so the number of tokens does not change.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional as F

KeyValue = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Injection:
    """What enters the attention of the blocks, by block index.

    prefixes: keys and values `[B, L, D]`, or `[1, L, D]` the same for all samples, put before
        those of the image tokens.
    suffixes: keys and values `[L, D]`, the same for all samples, put after them.
    additions: vectors `[D]` added to the class token's key and value (APT).
    token: `[1, D]`, appended as the last token before block 0 (the KD token).
    """

    prefixes: Mapping[int, KeyValue] = field(default_factory=dict)
    suffixes: Mapping[int, KeyValue] = field(default_factory=dict)
    additions: Mapping[int, KeyValue] = field(default_factory=dict)
    token: Tensor | None = None


@dataclass(frozen=True)
class Encoded:
    """Tokens `[B, N, D]` after the final norm, and the last blocks' outputs before it, if kept."""

    tokens: Tensor
    blocks: tuple[Tensor, ...]


def encode(
    vit: VisionTransformer,
    images: Tensor,
    injection: Injection | None = None,
    keep_blocks: int = 0,
) -> Encoded:
    """Run normalised images `[B, 3, H, W]` through a timm ViT; keep the last blocks' outputs."""
    injection = injection or Injection()
    x = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(images))))
    if injection.token is not None:
        x = torch.cat([x, injection.token.expand(len(x), 1, -1).to(x.dtype)], dim=1)
    outputs = []
    blocks: Iterable[Any] = vit.blocks  # torch types a module's parts as Tensor | Module
    for layer, block in enumerate(blocks):
        x = x + block.ls1(_attend(block.attn, block.norm1(x), injection, layer))
        x = x + block.ls2(block.mlp(block.norm2(x)))
        if layer >= len(vit.blocks) - keep_blocks:
            outputs.append(x)
    return Encoded(vit.norm(x), tuple(outputs))


def _attend(attn: Any, x: Tensor, injection: Injection, layer: int) -> Tensor:
    q, k, v = attn.qkv(x).unflatten(-1, (3, -1)).unbind(2)
    if layer in injection.additions:
        k, v = (
            torch.cat([(t[:, :1] + p).to(t.dtype), t[:, 1:]], dim=1)
            for t, p in zip((k, v), injection.additions[layer], strict=True)
        )
    before = injection.prefixes.get(layer)
    if before is not None:
        k, v = (
            torch.cat([p.to(t.dtype).expand(len(t), -1, -1), t], dim=1)
            for t, p in zip((k, v), before, strict=True)
        )
    after = injection.suffixes.get(layer)
    if after is not None:
        k, v = (
            torch.cat([t, p.expand(len(t), -1, -1).to(t.dtype)], dim=1)
            for t, p in zip((k, v), after, strict=True)
        )
    q, k, v = (t.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for t in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v)
    projected: Tensor = attn.proj(out.transpose(1, 2).flatten(2))
    return projected
