"""Compare a backbone with timm's forward pass; import weights of other programs."""

import copy
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from cdl.backbones import extractor, families, onnx_file, pretrained, weights
from cdl.backbones.extractor import FeatureExtractor
from cdl.backbones.fetch import build
from cdl.backbones.inside import available
from cdl.backbones.shape import BackboneShape
from cdl.backbones.vit import encode
from cdl.runtime.artifacts import replacing
from cdl.runtime.compute import Compute
from cdl.runtime.errors import CdlError

TOLERANCE = 1e-5
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checked:
    """Result of a check.

    width, depth, pooling: of the model; no depth and pooling if only its feature is read.
    tokens: number of all tokens at the model's default input size.
    difference: largest absolute difference of tokens and pooled feature from timm's own forward
        pass in fp32, relative to the largest value; of an ONNX file, between the feature of an
        image alone and in a batch.
    problem: why the model is refused or how it differs; empty if it passes.
    entrances: where modules can enter its blocks, see `cdl.backbones.inside`.
    shape: its shape, which decides on its methods; None if it is refused.
    """

    model: str
    width: int = 0
    depth: int = 0
    tokens: int = 0
    pooling: str = ""
    difference: float = 0.0
    problem: str = ""
    entrances: tuple[str, ...] = ()
    shape: BackboneShape | None = field(default=None, compare=False)


def check(model: str, file: Path | None = None) -> Checked:
    """Build a model and compare its forward pass with timm's.

    Args:
        model: timm's name; an ONNX file, read at 224 pixels if it reads any size; or a text
            encoder, OWNER/NAME if it has been fetched, or its folder.
        file: safetensors file with its weights; None for random weights. A text encoder is checked
            with the weights in its folder, or random ones if there are none.

    Raises:
        CdlError: the file cannot be read or contains other weights, or is given with an ONNX file.
    """
    if model.lower().endswith(onnx_file.SUFFIX):
        if file is not None:
            raise CdlError(f"{model}: has its own weights; leave out those of {file}")
        return _check_onnx(model)
    if "/" in model:  # no name of timm has a slash
        return _check_encoder(model)
    try:
        _, prompted = build(model)
    except CdlError as error:
        return Checked(model, problem=str(error))
    made = families.create(model, {"dynamic_img_size": False} if prompted else {})
    if file is not None:
        state, _ = weights.read(file)
        what = f"backbone file {str(file)!r}"
        made.load_state_dict(weights.convert(state, model, made, what, drop_unknown=not prompted))
    return _check_vit(model, made) if prompted else _check_features(model, made)


def _check_vit(model: str, vit: Any) -> Checked:
    """Compare tokens and pooled feature of a ViT with those of its own forward pass."""
    images = torch.rand(1, 3, *vit.patch_embed.img_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        own = copy.deepcopy(vit)  # before the injectors are installed
        tokens = own.forward_features(images)
        feature = own.forward_head(tokens, pre_logits=True)
        encoded = encode(vit, images)
    pairs = ((encoded.tokens, tokens), (encoded.features[:, 0], feature))
    difference = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
    found = available(vit, lambda: encode(vit, images))
    shape, n = replace(families.shape_of(vit), entrances=found), tokens.shape[1]
    facts = (shape.width, shape.depth, n, families.pooling(vit), difference)
    return Checked(model, *facts, _problem(difference), found, shape)


def _problem(difference: float) -> str:
    return "" if difference <= TOLERANCE else f"its output differs from timm's by {difference:.1e}"


def _check_features(model: str, made: Any) -> Checked:
    """Compare the feature of a model with what its head reads in timm's own forward pass."""
    size = extractor.input_size(made)
    given = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        own = made.forward_head(made.forward_features(given), pre_logits=True).flatten(1)
        width = extractor.validate(made, size)
        normalization = ([0.0] * 3, [1.0] * 3)
        frozen = FeatureExtractor(made, width, 0, size, normalization, model, "bilinear")
        feature = frozen.place(Compute.select("cpu")).query(given)
    difference = float((feature - own).abs().max() / own.abs().max())
    problem, shape = _problem(difference), frozen.shape
    return Checked(model, width, difference=difference, problem=problem, shape=shape)


def _check_onnx(model: str) -> Checked:
    """Compare the features of random images alone with those in a batch."""
    try:
        _, shape, difference = onnx_file.read_features(Path(model), None, 224)
    except CdlError as error:
        return Checked(model, problem=str(error).removeprefix(f"{model}: "))
    return Checked(model, shape.width, difference=difference, shape=shape)


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
    facts = (shape.width, shape.depth, tokens, pooled, difference, problem)
    return Checked(model, *facts, shape.entrances, shape)


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

    (vit, _), preprocessing = build(model), weights.preprocessing(model)
    published = weights.read_pickled(file)
    state = weights.without_prefix(published, vit)
    kept = weights.convert(state, model, vit, f"{str(file)!r}", drop_unknown=True)
    weights.check_values(kept, f"{str(file)!r}")
    header = {key: " ".join(map(str, preprocessing[key])) for key in ("mean", "std")}
    with replacing(output) as temporary:
        tensors = {name: tensor.contiguous().clone() for name, tensor in kept.items()}
        save_file(tensors, temporary, {"timm_model": model, **header})
    return weights.dropped(state, kept)
