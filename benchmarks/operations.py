"""The operations of a ViT with prompts.

Per image, a multiply-add being two, with `N` tokens (class and KD token included), width `D`, `P`
patches of side `p` and `m_l` extra keys at block `l`,

    forward  = 2 P 3p^2 D + sum_l (24 N D^2 + 4 N (N + m_l) D)

Backward through a frozen ViT costs each block above the lowest learnable one the same again, its
attention twice; the lowest one's projections to queries, keys and values and the gradient of its
queries are spared, unless a token is learnt. With weight gradients every linear map costs twice,
too. Prompts, heads, losses, normalisation and what fused kernels compute again are not counted.
"""

from cdl.backbones.frozen import Backbone
from cdl.backbones.vit import Injection


def operations(
    backbone: Backbone, injection: Injection, weights: bool = False
) -> tuple[float, float]:
    """Return operations per image of a ViT, forward and backward (see the module).

    Args:
        backbone: it tells tokens, width and blocks.
        injection: what prompts and distiller put into its attention.
        weights: whether the backward pass computes weight gradients.
    """
    patches, width = backbone.vit.patch_embed.num_patches, backbone.width
    embed = 2 * patches * 3 * backbone.vit.patch_embed.patch_size[0] ** 2 * width
    tokens = patches + 1 + (injection.token is not None)
    linear = 24 * tokens * width**2

    def attention(layer: int) -> float:
        extra = sum(
            pairs[layer][0].shape[-2]
            for pairs in (injection.prefixes, injection.suffixes)
            if layer in pairs
        )
        return 4 * tokens * (tokens + extra) * width

    depth = backbone.depth
    forward = embed + sum(linear + attention(layer) for layer in range(depth))
    if weights:
        return forward, embed + 2 * (forward - embed)
    learnt = [*injection.prefixes, *injection.suffixes, *injection.additions]
    lowest = -1 if injection.token is not None else min(learnt, default=depth)
    backward = sum(linear + 2 * attention(layer) for layer in range(lowest + 1, depth))
    if 0 <= lowest < depth:
        backward += 18 * tokens * width**2 + 1.5 * attention(lowest)
    return forward, backward
