"""Helpers of all cases: golden names, small contexts, a timm ViT with a case's shape."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from cdl.backbones.shape import BackboneShape
from cdl.distillers.base import DistillerContext, Output
from cdl.methods.base import PromptContext
from cdl.models.learner import Learner

Config = dict[str, Any]
Tensors = dict[str, Tensor]
Result = dict[str, Tensor | float]
Kinds = dict[str, Callable[[Config, Tensors], Result]]


def floats(tensors: Tensors) -> Tensors:
    """Cast half-precision storage to float32; keep everything else."""
    return {k: t.float() if t.dtype == torch.float16 else t for k, t in tensors.items()}


def learner_of(head: nn.Module, distiller: nn.Module) -> Learner:
    """A learner with only a head and a distiller; the case gives its outputs."""
    nothing = nn.Identity()
    return Learner(nothing, nothing, head, distiller, needs_query=False, compared_blocks=0)


def below(tensors: Tensors, prefix: str) -> Tensors:
    return {k[len(prefix) :]: t for k, t in tensors.items() if k.startswith(prefix)}


def leaf(tensor: Tensor) -> Tensor:
    return tensor.clone().requires_grad_(True)


def load(module: nn.Module, state: Tensors) -> None:
    """Set parameters and buffers by name; raise if a name does not exist."""
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert not unexpected, unexpected


def distiller_context(
    width: int, depth: int, teacher: BackboneShape | None = None, head: Any = None
) -> DistillerContext:
    return DistillerContext(
        student=BackboneShape(width, depth),
        teacher=teacher,
        teacher_prompts=None,
        n_tasks=1,
        head=head or (lambda generator: nn.Identity()),
        generator=torch.Generator(),
    )


def as_output(logits: Tensor, tokens: Tensor | None = None) -> Output:
    return Output(logits, tokens if tokens is not None else logits[:, None], (), {})


def prompt_context(config: Config) -> PromptContext:
    return PromptContext(
        width=config["dim"],
        depth=config.get("depth", 1 + max(config.get("layers", [0]))),
        query_width=config["d_query"],
        n_tasks=config.get("n_tasks", 1),
        generator=torch.Generator(),
    )


def vit(shape: Config, config: Config, state: Tensors) -> VisionTransformer:
    vit = VisionTransformer(
        img_size=config["img_size"],
        patch_size=config["patch_size"],
        embed_dim=shape["dim"],
        depth=shape["depth"],
        num_heads=shape["heads"],
        mlp_ratio=shape.get("mlp_ratio", 4),
        qkv_bias=shape.get("qkv_bias", True),
        norm_layer=partial(nn.LayerNorm, eps=shape.get("layer_norm_eps", 1e-6)),
        num_classes=0,
    )
    vit.load_state_dict(state)
    return vit
