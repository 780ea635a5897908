"""Compare a backbone with timm's forward pass; import weights of other programs."""

import copy
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cdl.backbones import families, pretrained, weights
from cdl.backbones.fetch import build
from cdl.backbones.inside import available
from cdl.backbones.vit import encode
from cdl.runtime.artifacts import replacing
from cdl.runtime.errors import CdlError

TOLERANCE = 1e-5
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checked:
    """Result of a check.

    width, depth, pooling: of the model.
    tokens: number of all tokens at the model's default input size.
    difference: largest absolute difference of tokens and pooled feature from timm's own forward
        pass in fp32, relative to the largest value.
    problem: why the model is refused or how it differs; empty if it passes.
    entrances: where modules can enter its blocks, see `cdl.backbones.inside`.
    """

    model: str
    width: int = 0
    depth: int = 0
    tokens: int = 0
    pooling: str = ""
    difference: float = 0.0
    problem: str = ""
    entrances: tuple[str, ...] = ()


def check(model: str, file: Path | None = None) -> Checked:
    """Build a model and compare its forward pass with timm's.

    Args:
        model: timm's name; or a text encoder, OWNER/NAME if it has been fetched, or its folder.
        file: safetensors file with its weights; None for random weights. A text encoder is checked
            with the weights in its folder, or random ones if there are none.

    Raises:
        CdlError: the file cannot be read or contains other weights.
    """
    if "/" in model:  # no name of timm has a slash
        return _check_encoder(model)
    try:
        build(model)
    except CdlError as error:
        return Checked(model, problem=str(error))
    vit: Any = families.create(model, {"dynamic_img_size": False})
    if file is not None:
        state, _ = weights.read(file)
        vit.load_state_dict(weights.convert(state, model, vit, f"backbone file {str(file)!r}"))
    images = torch.rand(1, 3, *vit.patch_embed.img_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        own = copy.deepcopy(vit)  # before the injectors are installed
        tokens = own.forward_features(images)
        feature = own.forward_head(tokens, pre_logits=True)
        encoded = encode(vit, images)
    pairs = ((encoded.tokens, tokens), (encoded.features[:, 0], feature))
    difference = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
    shape, n = families.shape_of(vit), tokens.shape[1]
    problem = (
        "" if difference <= TOLERANCE else f"its output differs from timm's by {difference:.1e}"
    )
    pooling = families.pooling(vit)
    found = available(vit, lambda: encode(vit, images))
    return Checked(model, shape.width, shape.depth, n, pooling, difference, problem, found)


def _check_encoder(model: str) -> Checked:
    """Compare the tokens of a text encoder with those that transformers computes."""
    from cdl.backbones import encoders

    folder = pretrained.folder_of("hf", model)
    folder = folder if (folder / pretrained.CONFIG).is_file() else Path(model)
    try:
        shape = pretrained.shape_of("folder", str(folder))
        config = pretrained.read_config(folder / pretrained.CONFIG)
        tensors = folder / pretrained.TENSORS
        state = weights.read(tensors)[0] if tensors.is_file() else None
        tokens, difference = encoders.compare(config, state, model)
        pooling = folder / pretrained.POOLING
        pooled = pretrained.read_pooling(pooling) if pooling.is_file() else "pooling unknown"
    except CdlError as error:
        return Checked(model, problem=str(error))
    differs = f"its output differs from transformers' by {difference:.1e}"
    problem = "" if difference <= TOLERANCE else differs
    found = shape.entrances
    return Checked(model, shape.width, shape.depth, tokens, pooled, difference, problem, found)


def import_weights(file: Path, model: str, output: Path) -> list[str]:
    """Write the weights of a `.pth` or `.bin` file as safetensors that `file:` reads.

    Args:
        file: a state dict, alone or inside a checkpoint; no code in it is run.
        model: timm's name of the model, with a tag if mean and std are those of the tag.
        output: the .safetensors file to write; its header contains the model, mean and std.

    Returns:
        First components of the names of tensors that were dropped.

    Raises:
        CdlError: the file cannot be read, lacks a tensor of the model, or has invalid values.
    """
    from safetensors.torch import save_file

    vit, preprocessing = build(model), weights.preprocessing(model)
    published = weights.read_pickled(file)
    state = weights.without_prefix(published, vit)
    kept = weights.convert(state, model, vit, f"{str(file)!r}", drop_unknown=True)
    weights.check_values(kept, f"{str(file)!r}")
    header = {key: " ".join(map(str, preprocessing[key])) for key in ("mean", "std")}
    with replacing(output) as temporary:
        tensors = {name: tensor.contiguous().clone() for name, tensor in kept.items()}
        save_file(tensors, temporary, {"timm_model": model, **header})
    return weights.dropped(state, kept)
