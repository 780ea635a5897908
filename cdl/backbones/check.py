"""A backbone's run beside timm's own, and weights of other programs brought into one form."""

import copy
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cdl.backbones import families, weights
from cdl.backbones.fetch import build
from cdl.backbones.vit import encode
from cdl.runtime.artifacts import replacing
from cdl.runtime.errors import CdlError

TOLERANCE = 1e-5
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checked:
    """What a check found.

    width, depth, tokens, pooling: of the model; tokens at its own input size, all of them.
    difference: the largest, of tokens and pooled feature, from timm's own forward in fp32,
        relative to the largest value.
    problem: one sentence if it is refused or differs, else empty.
    """

    model: str
    width: int = 0
    depth: int = 0
    tokens: int = 0
    pooling: str = ""
    difference: float = 0.0
    problem: str = ""


def check(model: str, file: Path | None = None) -> Checked:
    """Build a model with random weights, or those of a safetensors file, and compare its forward.

    Raises:
        CdlError: the file cannot be read or holds other weights.
    """
    try:
        build(model)
    except CdlError as error:
        return Checked(model, problem=str(error))
    vit: Any = families.create(model, {"dynamic_img_size": False})
    if file is not None:
        state, _ = weights.read(file)
        vit.load_state_dict(weights.fitted(state, model, vit, f"backbone file {str(file)!r}"))
    images = torch.rand(1, 3, *vit.patch_embed.img_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        own = copy.deepcopy(vit)  # before its attention is opened
        tokens = own.forward_features(images)
        feature = own.forward_head(tokens, pre_logits=True)
        encoded = encode(vit, images)
    pairs = ((encoded.tokens, tokens), (encoded.features[:, 0], feature))
    difference = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
    shape, n = families.shape_of(vit), tokens.shape[1]
    problem = "" if difference <= TOLERANCE else f"it differs from timm's own by {difference:.1e}"
    pooling = families.pooling(vit)
    return Checked(model, shape.width, shape.depth, n, pooling, difference, problem)


def import_weights(file: Path, model: str, output: Path) -> list[str]:
    """Write the weights of a `.pth` or `.bin` file as safetensors that `file:` reads.

    Args:
        file: a state dict, alone or inside a checkpoint; nothing that it holds is run.
        model: timm's name of what it holds, with a tag if mean and std are that tag's.
        output: the .safetensors file to write; its header names the model, mean and std.

    Returns:
        First parts of the names of tensors that were dropped.

    Raises:
        CdlError: the file cannot be read, or lacks a tensor of the model.
    """
    from safetensors.torch import save_file

    vit, made = build(model), weights.preprocessing(model)
    published = weights.read_pickled(file)
    state = weights.without_prefix(published, vit)
    kept = weights.fitted(state, model, vit, f"{str(file)!r}", foreign=True)
    header = {key: " ".join(map(str, made[key])) for key in ("mean", "std")}
    with replacing(output) as temporary:
        tensors = {name: tensor.contiguous() for name, tensor in kept.items()}
        save_file(tensors, temporary, {"timm_model": model, **header})
    return weights.dropped(state, kept)
