"""Running a vision transformer of timm with what prompts and distillers put into its attention."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cdl.backbones.attention import Injection, KeyValue, entrance
from cdl.runtime.errors import CdlError

__all__ = ["Encoded", "Injection", "KeyValue", "encode"]


@dataclass(frozen=True)
class Encoded:
    """What a vision transformer makes of images.

    tokens: `[B, N, D]` after the final norm, as timm's `forward_features` returns them; an appended
        token is the last.
    features: `[B, 1 or 2, D]`, what heads read: the feature that the model pools, by timm's
        `forward_head(pre_logits=True)`, and the final state of a token that was appended, normed
        as the feature is.
    blocks: outputs `[B, N, D]` of the last blocks before the final norm, if kept: the class token,
        if there is one, and image tokens; registers are left out, so that models with and without
        them can be compared.
    """

    tokens: Tensor
    features: Tensor
    blocks: tuple[Tensor, ...]


def encode(
    vit: Any,
    images: Tensor,
    injection: Injection | None = None,
    keep_blocks: int = 0,
) -> Encoded:
    """Run normalised images `[B, 3, H, W]` through timm's own blocks, one after the other.

    Args:
        vit: a timm model that `cdl.backbones.families` accepts.
        images: of the model's input size.
        injection: what enters; rotary positions are for image tokens only, registers are tokens
            like any other.
        keep_blocks: how many of the last blocks' outputs are kept.
    """
    injection = injection or Injection()
    if injection.additions and vit.cls_token is None:
        raise CdlError("additions go to the class token, and this backbone has none")
    x = vit._pos_embed(vit.patch_embed(images))
    x, positions = x if isinstance(x, tuple) else (x, None)
    x = vit.norm_pre(x)
    if injection.token is not None:
        x = torch.cat([x, injection.token.expand(x.shape[0], 1, -1).to(x.dtype)], dim=1)
        positions = None if positions is None else _unrotated(positions)
    outputs = []
    for layer, block in enumerate(vit.blocks):
        door = entrance(block)
        door.open(injection, layer)
        if positions is None:
            x = block(x)
        else:
            x = block(x, rope=positions[layer] if vit.rope_mixed else positions)
        door.close()
        if layer >= len(vit.blocks) - keep_blocks:
            outputs.append(_without_registers(vit, x))
    x = vit.norm(x)
    if injection.token is None:
        read = vit.forward_head(x, pre_logits=True)[:, None]
    else:
        pooled = vit.forward_head(x[:, :-1], pre_logits=True)
        read = torch.stack([pooled, vit.fc_norm(x[:, -1])], dim=1)
    return Encoded(x, read, tuple(outputs))


def _without_registers(vit: Any, tokens: Tensor) -> Tensor:
    first = int(vit.cls_token is not None)
    if vit.num_prefix_tokens == first:
        return tokens
    return torch.cat([tokens[:, :first], tokens[:, vit.num_prefix_tokens :]], dim=1)


def _unrotated(positions: Tensor) -> Tensor:
    """Add a row to rotations `[..., N, sines and cosines]` that turns a token by nothing."""
    sine = torch.zeros_like(positions[..., :1, :]).chunk(2, dim=-1)[0]
    return torch.cat([positions, torch.cat([sine, sine + 1], dim=-1)], dim=-2)
