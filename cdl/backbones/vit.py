"""Running a vision transformer of timm with what prompts and distillers put into its attention."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cdl.backbones.attention import Injection, KeyValue, entrance
from cdl.runtime.errors import CdlError

__all__ = ["Begun", "Encoded", "Injection", "KeyValue", "encode"]


@dataclass(frozen=True)
class Begun:
    """What a pass without prompts holds that a second one of the same images need not compute.

    inputs: tokens `[B, N, D]` before each block, and behind the last one.
    positions: rotations of the tokens, if there are any.
    """

    inputs: tuple[Tensor, ...]
    positions: Tensor | None


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
    begun: if asked for.
    """

    tokens: Tensor
    features: Tensor
    blocks: tuple[Tensor, ...]
    begun: Begun | None = None


def encode(
    vit: Any,
    images: Tensor,
    injection: Injection | None = None,
    keep_blocks: int = 0,
    begun: Begun | None = None,
    begin: bool = False,
) -> Encoded:
    """Run normalised images `[B, 3, H, W]` through timm's own blocks, one after the other.

    Args:
        vit: a timm model that `cdl.backbones.families` accepts.
        images: of the model's input size.
        injection: what enters; rotary positions are for image tokens only, registers are tokens
            like any other.
        keep_blocks: how many of the last blocks' outputs are kept.
        begun: by a pass of the same images into which nothing was injected; this one goes on from
            there, with the first block that something enters.
        begin: whether another one shall go on from here.
    """
    injection = injection or Injection()
    if injection.additions and vit.cls_token is None:
        raise CdlError("additions go to the class token, and this backbone has none")
    done = 0 if begun is None else injection.first(len(vit.blocks))
    x, positions = _embedded(vit, images) if begun is None else (begun.inputs[0], begun.positions)
    if injection.token is not None:
        x = torch.cat([x, injection.token.expand(x.shape[0], 1, -1).to(x.dtype)], dim=1)
        positions = None if positions is None else _unrotated(positions)
    outputs, inputs = [], [x]
    for layer, block in enumerate(vit.blocks):
        if begun is not None and layer < done:
            x = begun.inputs[layer + 1]
        else:
            door = entrance(block)
            door.open(injection, layer)
            if positions is None:
                x = block(x)
            else:
                x = block(x, rope=positions[layer] if vit.rope_mixed else positions)
            door.close()
        if begin:
            inputs.append(x)
        if layer >= len(vit.blocks) - keep_blocks:
            outputs.append(_without_registers(vit, x))
    x = vit.norm(x)
    if injection.token is None:
        read = vit.forward_head(x, pre_logits=True)[:, None]
    else:
        pooled = vit.forward_head(x[:, :-1], pre_logits=True)
        read = torch.stack([pooled, vit.fc_norm(x[:, -1])], dim=1)
    return Encoded(x, read, tuple(outputs), Begun(tuple(inputs), positions) if begin else None)


def _embedded(vit: Any, images: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the tokens before the first block, and their rotations if there are any."""
    x = vit._pos_embed(vit.patch_embed(images))
    x, positions = x if isinstance(x, tuple) else (x, None)
    return vit.norm_pre(x), positions


def _without_registers(vit: Any, tokens: Tensor) -> Tensor:
    first = int(vit.cls_token is not None)
    if vit.num_prefix_tokens == first:
        return tokens
    return torch.cat([tokens[:, :first], tokens[:, vit.num_prefix_tokens :]], dim=1)


def _unrotated(positions: Tensor) -> Tensor:
    """Add a row to rotations `[..., N, sines and cosines]` that turns a token by nothing."""
    sine = torch.zeros_like(positions[..., :1, :]).chunk(2, dim=-1)[0]
    return torch.cat([positions, torch.cat([sine, sine + 1], dim=-1)], dim=-2)
