"""Decide which models of timm can be prompted, from the modules that timm builds.

A model is accepted if it is a sequence of blocks over the same tokens and every block attends to
all of them by `scaled_dot_product_attention`, where prefixes are injected. Names are not used.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import timm
import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from cdl.backbones.attention import Injection, attentions
from cdl.backbones.inside import available
from cdl.backbones.shape import BackboneShape
from cdl.backbones.vit import encode
from cdl.runtime.errors import CdlError, first_line

# models are typed as Any, because torch types every attribute of a module as Tensor | Module
PLAIN = "vit_base_patch16_224"  # timm's plain ViT; arguments give it any shape
_SEQUENCES = (VisionTransformer.forward_features, Eva.forward_features)


def create(model: str, arguments: Mapping[str, Any] | None = None, device: str = "cpu") -> Any:
    """Return timm's model with random weights, without its classifier, in eval mode.

    Args:
        model: an architecture, or architecture.tag to use the arguments of that tag.
        arguments: keyword arguments that change the architecture.
        device: `meta` to build it without memory for weights.

    Raises:
        CdlError: timm cannot build it.
    """
    try:
        with _timm_warnings_off(), torch.device(device):
            made: Any = timm.create_model(
                model, pretrained=False, num_classes=0, **dict(arguments or {})
            )
    except (RuntimeError, ValueError, TypeError, AssertionError, ArithmeticError) as error:
        problem = f"timm {timm.__version__} cannot build {model!r}: {first_line(error)}"
        raise CdlError(problem) from error
    return made.eval()


def refusal(model: Any) -> str | None:
    """Return why a model, also on the meta device, cannot be prompted; else None."""
    name = type(model).__name__
    if getattr(type(model), "forward_features", None) not in _SEQUENCES:
        return f"{name} is not a sequence of blocks over the same tokens"
    unreached = next((b for b in model.blocks if not attentions(b)), None)
    if unreached is not None:
        return f"{type(unreached).__name__} has an attention that does not accept prefixes"
    if model.in_chans != 3:
        return f"its images have {model.in_chans} channels; expected 3"
    if not model.global_pool:
        return "it has no pooled feature, which queries and heads need"
    return None


def shape_of(model: Any) -> BackboneShape:
    """Return the shape of a model; raise `CdlError` if patches are not square."""
    height, width = _height_and_width(model.patch_embed.feat_ratio(as_scalar=False))
    if height != width:
        raise CdlError(f"its patches are {height} x {width} pixels; expected square patches")
    return BackboneShape(
        width=model.embed_dim,
        depth=len(model.blocks),
        patch=height,
        class_token=model.cls_token is not None,
    )


def validate(model: Any) -> None:
    """Run a model on the meta device with a prefix in every block.

    Raises:
        CdlError: the model is refused, or its pooled feature has an unexpected shape.
    """
    reason = refusal(model)
    if reason is not None:
        raise CdlError(reason)
    shape = shape_of(model)
    pair = (torch.zeros(1, 2, shape.width, device="meta"),) * 2
    images = torch.zeros(1, 3, *model.patch_embed.img_size, device="meta")
    injection = Injection(prefixes=dict.fromkeys(range(shape.depth), pair))
    encoded = encode(model, images, injection, keep_blocks=1)
    if encoded.features.shape != (1, 1, shape.width):
        found = tuple(encoded.features[:, 0].shape)
        raise CdlError(f"its pooled feature has the shape {found}; expected (1, {shape.width})")


def entrances(model: Any) -> tuple[str, ...]:
    """Return where small modules can enter the blocks of a model on the meta device."""
    images = torch.zeros(1, 3, *model.patch_embed.img_size, device="meta")
    return available(model, lambda: encode(model, images))


def pooling(model: Any) -> str:
    """Return the name of the way in which a model pools its tokens."""
    words = {"token": "class token", "avg": "average", "map": "attention pool"}
    return words.get(str(model.global_pool), str(model.global_pool))


def parts(model: Any) -> str:
    """Return the parts that a plain ViT lacks, comma-separated; `plain` if none."""
    block = model.blocks[0]
    attention, mlp = attentions(block)[0], getattr(block, "mlp", None)
    kinds = [type(block), type(attention), type(model.norm), type(model.fc_norm), type(mlp)]
    kinds += [type(getattr(mlp, "act", None)), type(getattr(model, "rope", None))]
    kinds += [type(model.patch_embed), type(getattr(model.patch_embed, "backbone", None))]
    names = [kind.__name__ for kind in dict.fromkeys(kinds)]
    flags = {
        "pre-norm": not isinstance(model.norm_pre, nn.Identity),
        "LayerScale": hasattr(getattr(block, "ls1", getattr(block, "ls", None)), "gamma")
        or getattr(block, "gamma_1", None) is not None,
        "q/k norm": not isinstance(attention.q_norm, nn.Identity),
        "norm of attention": not isinstance(getattr(attention, "norm", nn.Identity()), nn.Identity),
        "gate": getattr(attention, "gate", None) is not None,
        "grouped heads": any(getattr(a, "num_kv_groups", 1) > 1 for a in model.modules()),
        "separate q, k, v": getattr(attention, "q_proj", None) is not None,
        "registers": model.reg_token is not None,
        "no absolute positions": model.pos_embed is None,
        "no_embed_class": model.no_embed_class,
    }
    plain = {"Block", "Attention", "LayerNorm", "Identity", "Mlp", "GELU", "NoneType", "PatchEmbed"}
    plain |= {"EvaBlock"} if isinstance(model, Eva) else set()
    words = [name for name in names if name not in plain] + [w for w, has in flags.items() if has]
    return ", ".join(words) or "plain"


def _height_and_width(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


@contextmanager
def _timm_warnings_off() -> Iterator[None]:
    """Keep timm's warnings about the model that it builds out of the log."""
    logger = logging.getLogger("timm")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
