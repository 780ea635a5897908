"""The operations of a ViT with prompts, and of all jobs that learn a task with it.

Per image, a multiply-add being two, with `N` tokens (class, registers and KD token included), width
`D`, `P` patches, `W_l` weights of the linear maps of block `l` (`12 D^2` of a plain ViT), `W_e` of
the patch embedding and `m_l` extra keys,

    forward  = 2 P W_e + sum_l (2 N W_l + 4 N (N + m_l) D)

Backward through a frozen ViT costs each block above the lowest learnable one the same again, its
attention twice; the lowest one's projections to queries, keys and values and the gradient of its
queries are spared, unless a token is learnt. With weight gradients every linear map costs twice,
too. Prompts, heads, losses, normalisation and what fused kernels compute again are not counted.
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
    """Return operations per image of a ViT, forward and backward (see the module).

    Args:
        backbone: it tells tokens, width and blocks.
        injection: what prompts and distiller put into its attention.
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
    """Return a learner's operations per image, forward and backward; it is left in eval mode.

    Args:
        learner: after a task.
        task: the latest task learnt.
        widths: of its `query` and, with a teacher, of the `teacher_query`.
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
    """Return how many weights multiply each token."""
    kinds = (nn.Linear, nn.Conv2d, PackedLinear)
    return sum(part.weight.numel() for part in module.modules() if isinstance(part, kinds))


def _projections(block: nn.Module) -> int:
    """Return how many weights make queries, keys and values."""
    found = (getattr(part, name, None) for part in attentions(block) for name in _PROJECTIONS)
    return sum(_matrices(part) for part in found if isinstance(part, nn.Module))
