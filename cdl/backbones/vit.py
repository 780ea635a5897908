"""Forward pass of timm's vision transformers with prompts in their attention."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cdl.backbones.attention import Injection, KeyValue, injector_of
from cdl.backbones.inside import Inside, opened
from cdl.runtime.errors import CdlError

__all__ = ["BlockInputs", "Encoded", "Injection", "Inside", "KeyValue", "encode"]


@dataclass(frozen=True)
class BlockInputs:
    """Inputs of all blocks in a pass without prompts; another pass can resume here.

    inputs: tokens `[B, N, D]` before each block, and after the last one.
    positions: rotary embeddings of the tokens; None in a model without them.
    """

    inputs: tuple[Tensor, ...]
    positions: Tensor | None


@dataclass(frozen=True)
class Encoded:
    """Output of a vision transformer.

    tokens: `[B, N, D]` after the final norm, as timm's `forward_features` returns them; an appended
        token is the last.
    features: `[B, 1 or 2, D]`, the input of heads: the pooled feature of timm's
        `forward_head(pre_logits=True)` and, if a token was appended, its final state after the
        same norms.
    blocks: outputs `[B, N, D]` of the last blocks before the final norm, if kept: the class token,
        if there is one, and image tokens; registers are left out, so that models with and without
        them can be compared.
    block_inputs: None unless `encode` keeps them.
    """

    tokens: Tensor
    features: Tensor
    blocks: tuple[Tensor, ...]
    block_inputs: BlockInputs | None = None


def encode(
    vit: Any,
    images: Tensor,
    injection: Injection | None = None,
    keep_blocks: int = 0,
    resume_from: BlockInputs | None = None,
    keep_inputs: bool = False,
) -> Encoded:
    """Run normalised images `[B, 3, H, W]` through timm's blocks, one by one.

    Args:
        vit: a timm model that `cdl.backbones.families` accepts.
        images: of the model's input size.
        injection: prompts; rotary embeddings apply to image tokens only, registers are tokens
            like any other.
        keep_blocks: number of last blocks whose outputs are returned.
        resume_from: block inputs of a pass of the same images without an injection; this pass
            resumes at the first block that has an injection.
        keep_inputs: whether to return the block inputs, so that another pass can resume from them.

    Raises:
        CdlError: the injection has additions, and the model has no class token.
    """
    injection = injection or Injection()
    if injection.additions and vit.cls_token is None:
        raise CdlError("additions need a class token; this backbone has none")
    with opened(vit, injection.inside):
        return _encode(vit, images, injection, keep_blocks, resume_from, keep_inputs)


def _encode(
    vit: Any,
    images: Tensor,
    injection: Injection,
    keep_blocks: int,
    resume_from: BlockInputs | None,
    keep_inputs: bool,
) -> Encoded:
    """Return what `encode` returns, with the entrances of the ViT open."""
    if resume_from is None or injection.inside.affine:  # which changes the embedding, too
        resume_from = None
        first, (x, positions) = 0, _embed(vit, images)
    else:
        first, x = injection.first(len(vit.blocks)), resume_from.inputs[0]
        positions = resume_from.positions
    if injection.token is not None:
        x = torch.cat([x, injection.token.expand(x.shape[0], 1, -1).to(x.dtype)], dim=1)
        positions = None if positions is None else _append_identity_rotation(positions)
    outputs, inputs = [], [x]
    for layer in range(len(vit.blocks)):
        if resume_from is not None and layer < first:
            x = resume_from.inputs[layer + 1]
        else:
            x = _run_block(vit, layer, x, positions, injection)
        if keep_inputs:
            inputs.append(x)
        if layer >= len(vit.blocks) - keep_blocks:
            outputs.append(_without_registers(vit, x))
    x = vit.norm(x)
    if injection.token is None:
        features = vit.forward_head(x, pre_logits=True)[:, None]
    else:
        pooled = vit.forward_head(x[:, :-1], pre_logits=True)
        features = torch.stack([pooled, vit.fc_norm(x[:, -1])], dim=1)
    kept = BlockInputs(tuple(inputs), positions) if keep_inputs else None
    return Encoded(x, features, tuple(outputs), kept)


def _run_block(
    vit: Any, layer: int, x: Tensor, positions: Tensor | None, injection: Injection
) -> Tensor:
    """Return the output of a block with its part of the injection, `[B, N, D]`."""
    block, tokens = vit.blocks[layer], injection.inside.tokens.get(layer)
    if positions is not None and vit.rope_mixed:
        positions = positions[layer]
    n = x.shape[1]
    if tokens is not None:
        x = torch.cat([x, tokens.expand(x.shape[0], -1, -1).to(x.dtype)], dim=1)
        if positions is not None:
            positions = _append_identity_rotation(positions, len(tokens))
    injector = injector_of(block)
    injector.set(injection, layer)
    x = block(x) if positions is None else block(x, rope=positions)
    injector.clear()
    return x if tokens is None else x[:, :n]


def _embed(vit: Any, images: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the tokens before the first block, and their rotary embeddings or None."""
    x = vit._pos_embed(vit.patch_embed(images))
    x, positions = x if isinstance(x, tuple) else (x, None)
    return vit.norm_pre(x), positions


def _without_registers(vit: Any, tokens: Tensor) -> Tensor:
    first = int(vit.cls_token is not None)
    if vit.num_prefix_tokens == first:
        return tokens
    return torch.cat([tokens[:, :first], tokens[:, vit.num_prefix_tokens :]], dim=1)


def _append_identity_rotation(positions: Tensor, n: int = 1) -> Tensor:
    """Append `n` identities to rotary embeddings `[..., N, sines and cosines]`."""
    sine = torch.zeros_like(positions[..., :1, :]).chunk(2, dim=-1)[0]
    identity = torch.cat([sine, sine + 1], dim=-1)
    return torch.cat([positions, *[identity] * n], dim=-2)
