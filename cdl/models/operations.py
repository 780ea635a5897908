"""Analytic operation counts of a ViT with prompts.

A multiply-add counts as two operations. For one image with `N` tokens (class token, registers and
KD token included), width `D`, `P` patches, `W_l` weights in the linear maps of block `l` (`12 D^2`
in a plain ViT), `W_e` weights in the patch embedding and `m_l` additional keys,

    forward  = 2 P W_e + sum_l (2 N W_l + 4 N (N + m_l) D)

The backward pass through a frozen ViT costs, for each block above the lowest one with learnable
input, its linear maps once and its attention twice. The lowest block needs no gradients of its
queries and of its projections to queries, keys and values, unless a token is learnt. With weight
gradients every linear map costs twice. Prompts, heads, losses, normalisation and the recomputation
in fused kernels are not counted.
"""

from collections.abc import Mapping

import torch
from torch import nn

from cdl.backbones.attention import attentions
from cdl.backbones.frozen import Backbone
from cdl.backbones.packing import PackedLinear
from cdl.backbones.vit import Injection
from cdl.models.learner import Learner

_PROJECTIONS = ("qkv", "q_proj", "k_proj", "v_proj")


def operations(
    backbone: Backbone, injection: Injection, weights: bool = False
) -> tuple[float, float]:
    """Return the operations per image of a ViT, forward and backward.

    Args:
        backbone: the ViT; it determines tokens, width and blocks.
        injection: injection of prompts and distiller into its attention.
        weights: whether the backward pass computes weight gradients.
    """
    vit, width, depth = backbone.vit, backbone.width, backbone.depth
    patches = vit.patch_embed.num_patches
    embed = 2.0 * patches * _matrices(vit.patch_embed)
    tokens = patches + vit.num_prefix_tokens + (injection.token is not None)
    linear = [2.0 * tokens * _matrices(block) for block in vit.blocks]

    def attention(layer: int) -> float:
        extra = sum(
            pairs[layer][0].shape[-2]
            for pairs in (injection.prefixes, injection.suffixes)
            if layer in pairs
        )
        return float(4 * tokens * (tokens + extra) * width)

    forward = embed + sum(linear[layer] + attention(layer) for layer in range(depth))
    if weights:
        return forward, embed + 2 * (forward - embed)
    learnt = [*injection.prefixes, *injection.suffixes, *injection.additions]
    lowest = -1 if injection.token is not None else min(learnt, default=depth)
    backward = sum(linear[layer] + 2 * attention(layer) for layer in range(lowest + 1, depth))
    if 0 <= lowest < depth:
        spared = 2.0 * tokens * _projections(vit.blocks[lowest])
        backward += linear[lowest] - spared + 1.5 * attention(lowest)
    return forward, backward


def of_learner(learner: Learner, task: int, widths: Mapping[str, int]) -> tuple[float, float]:
    """Set a learner to eval mode; return its operations per image, both directions.

    Args:
        learner: the learner after a task.
        task: the latest task.
        widths: width of its `query` and, with a teacher, of the `teacher_query`.
    """
    device = learner.backbone.mean.device

    def query(part: str) -> torch.Tensor:
        return torch.zeros(1, widths.get(part, 0), device=device)

    learner.eval()
    with torch.no_grad():
        prompts = learner.prompts(query("query") if learner.needs_query else None, task)
        injection = learner.distiller.inject(prompts, query("teacher_query"), task)
    return operations(learner.backbone, injection)


def of_query(backbone: Backbone) -> float:
    """Return the operations per image of a backbone without prompts."""
    return operations(backbone, Injection())[0]


def _matrices(module: nn.Module) -> int:
    """Return the number of weights of a module that multiply each token."""
    kinds = (nn.Linear, nn.Conv2d, PackedLinear)
    return sum(part.weight.numel() for part in module.modules() if isinstance(part, kinds))


def _projections(block: nn.Module) -> int:
    """Return the weights of a block's projections to queries, keys and values."""
    found = (getattr(part, name, None) for part in attentions(block) for name in _PROJECTIONS)
    return sum(_matrices(part) for part in found if isinstance(part, nn.Module))
