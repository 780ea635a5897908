"""Analytic operation counts of a ViT with prompts.

A multiply-add counts as two operations. For one image with `N` tokens (class token, registers and
KD token included), width `D`, `P` patches, `W_l` weights in the linear maps of block `l` (`12 D^2`
in a plain ViT), `W_e` weights in the patch embedding and `m_l` additional keys,

    forward  = 2 P W_e + sum_l (2 N W_l + 4 N (N + m_l) D)

The backward pass through a frozen ViT costs, for each block above the lowest one with learnable
input, its linear maps once and its attention twice. The lowest block needs no gradients of its
queries and of its projections to queries, keys and values, unless a token is learnt. With weight
gradients every linear map costs twice. Prompts, heads, losses, normalisation and the recomputation
in fused kernels are not counted. Adapters and low-rank branches count as further linear maps, of
which the backward pass needs the gradients of input and weights.
"""

from collections.abc import Mapping

import torch
from torch import nn

from cdl.backbones.attention import attentions
from cdl.backbones.frozen import Backbone
from cdl.backbones.packing import multiplied
from cdl.backbones.vit import Injection, Inside
from cdl.models.learner import Learner

_PROJECTIONS = ("qkv", "q_proj", "k_proj", "v_proj")


def operations(
    backbone: Backbone, injection: Injection, weights: bool = False
) -> tuple[float, float]:
    """Return the operations per image of a ViT, forward and backward.

    Args:
        backbone: it determines tokens, width and blocks.
        injection: injection of prompts and distiller into its attention.
        weights: whether the backward pass computes weight gradients.
    """
    blocks, width, depth = backbone.blocks, backbone.width, backbone.depth
    embed, inside = backbone.outside, injection.inside
    usual = backbone.tokens + (injection.token is not None)
    tokens = [usual + len(inside.tokens.get(layer, ())) for layer in range(depth)]
    linear = [2.0 * n * multiplied(block) for n, block in zip(tokens, blocks, strict=True)]
    added = [2.0 * usual * _added_weights(inside, layer) for layer in range(depth)]

    def attention(layer: int) -> float:
        extra = sum(
            pairs[layer][0].shape[-2]
            for pairs in (injection.prefixes, injection.suffixes)
            if layer in pairs
        )
        return float(4 * tokens[layer] * (tokens[layer] + extra) * width)

    plain = embed + sum(linear[layer] + attention(layer) for layer in range(depth))
    if weights:
        return plain, embed + 2 * (plain - embed)
    enters = {*injection.prefixes, *injection.suffixes, *injection.additions, *inside.branches}
    everywhere = injection.token is not None or inside.affine or 0 in inside.tokens
    lowest = -1 if everywhere else min(enters | inside.layers(), default=depth)
    backward = sum(linear[layer] + 2 * attention(layer) for layer in range(lowest + 1, depth))
    if lowest in enters:  # an adapter needs no gradient of its own block
        spared = 2.0 * tokens[lowest] * _projections(blocks[lowest])
        backward += linear[lowest] - spared + 1.5 * attention(lowest)
    backward += 2 * sum(added) - sum(added[lowest : lowest + 1]) / 2  # of the input and the weights
    return plain + sum(added), backward


def _added_weights(inside: Inside, layer: int) -> int:
    """Return the number of weights of adapter and branches that multiply each token."""
    adapter = inside.adapters.get(layer)
    own = multiplied(adapter) if isinstance(adapter, nn.Module) else 0
    pairs = inside.branches.get(layer, {}).values()
    return own + sum(down.numel() + up.numel() for down, up in pairs)


def of_learner(learner: Learner, task: int, widths: Mapping[str, int]) -> tuple[float, float]:
    """Set a learner to eval mode; return its operations per image, both directions.

    Args:
        learner: the learner after a task.
        task: the latest task.
        widths: width of its `query` and, with a teacher, of the `teacher_query`.
    """
    device = learner.backbone.device

    def query(part: str) -> torch.Tensor:
        return torch.zeros(1, widths.get(part, 0), device=device)

    learner.eval()
    with torch.no_grad():
        own = query("query") if learner.needs_query else None
        _, injections = learner.inject(own, task, query("teacher_query"))
    passes = [operations(learner.backbone, injection) for injection in injections]
    return sum(forward for forward, _ in passes), sum(backward for _, backward in passes)


def of_query(backbone: Backbone) -> float:
    """Return the operations per image of a backbone without prompts."""
    return operations(backbone, Injection())[0]


def _projections(block: nn.Module) -> int:
    """Return the weights of a block's projections to queries, keys and values."""
    found = (getattr(part, name, None) for part in attentions(block) for name in _PROJECTIONS)
    return sum(multiplied(part) for part in found if isinstance(part, nn.Module))
