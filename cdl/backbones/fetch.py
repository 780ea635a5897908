"""Fetch frozen backbones: embedded, from a file, by timm tag, of transformers, or of ONNX.

`fetch` writes every backbone as the same kind of artifact (tensors, how to build the model,
fingerprint), which `Backbone.load` reads. Only the weights of timm tags and text encoders of the
Hub are fetched over a network. Weights are read as safetensors only, never unpickled.
"""

import re
import shutil
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

from cdl.backbones import extractor, families, onnx_file, pretrained, weights
from cdl.backbones.architectures import similar
from cdl.backbones.images import FEATURES
from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError
from cdl.runtime.fetching import Hub, Published, obtain, remember

WEIGHTS = Path("data/backbones")  # weights of timm tags, as TAG.safetensors
_SHAPE = ("img_size", "patch_size", "embed_dim", "depth", "num_heads")


def fetch(
    output: str | Path,
    source: str,
    model: str,
    timm_model: str | None = None,
    pooling: str | None = None,
    revision: str | None = None,
    size: int | None = None,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    **fetching: Any,
) -> None:
    """Write a backbone artifact.

    Args:
        output: the .safetensors file to write.
        source: `embedded`, `file`, `timm`, `hf`, `folder` or `onnx`.
        model: a name in `cdl/assets`; the path of a .safetensors file; a full timm tag such as
            `vit_base_patch16_224.augreg_in21k_ft_in1k`; OWNER/NAME of a text encoder on the Hub; a
            text encoder's folder; or the path of an ONNX file.
        timm_model: for a file, the timm model whose weights it contains, with a tag if mean and
            std are those of the tag. If None, it is `timm_model` of the file's header or, without
            that, a plain ViT. `_SHAPE`, mean and std in the header take precedence; for a plain
            ViT the header must contain all of them.
        pooling: of a text encoder, `mean` or `cls`; None: as `1_Pooling/config.json` says.
        revision: of a text encoder on the Hub; None: `main`.
        size: of an ONNX file: side of its images in pixels; None: as the file says.
        mean: of an ONNX file: mean of each channel, of pixels in 0..1.
        std: of an ONNX file: their standard deviation.
        fetching: for a tag, `mirror` and `offline` of `cdl.runtime.fetching.obtain`.

    Raises:
        CdlError: the source cannot be read or fetched, or the model gives no feature vector.
    """
    if source == "timm":
        path, state, made = _from_timm(model, fetching)
    elif source in pretrained.SOURCES:
        path, state, made = _from_transformers(source, model, pooling, revision, fetching)
    elif source == "onnx":
        path = Path(model)
        network, shape, _ = onnx_file.read_features(path, size)
        state = {extractor.CONTENT: torch.frombuffer(bytearray(network.content), dtype=torch.uint8)}
        state |= {"mean": torch.tensor(mean), "std": torch.tensor(std)}  # for the fingerprint
        made = {FEATURES: True, "width": shape.width, "mean": [*mean], "std": [*std]}
        made |= {"interpolation": "bilinear", **onnx_file.facts(network)}
    else:
        assets = Path(str(files("cdl") / "assets"))
        path = assets / f"{model}.safetensors" if source == "embedded" else Path(model)
        state, made = _from_file(path, timm_model)
    metadata = {
        "model": model,
        **made,
        "file_sha256": artifacts.fingerprint_file(path),
        "fingerprint": artifacts.fingerprint_tensors(state),
    }
    artifacts.save(output, state, metadata)


def _from_file(path: Path, timm_model: str | None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a user's file, and the metadata of their model."""
    state, header = weights.read(path)
    what, name = f"backbone file {str(path)!r}", timm_model or header.get("timm_model")
    try:
        arguments: dict[str, Any] = {key: int(header[key]) for key in _SHAPE if key in header}
    except ValueError as error:
        raise CdlError(f"{what}: its header's metadata: {error}") from error
    made = _parse_normalization(what, header)
    missing = [key for key in (*_SHAPE, "mean", "std") if key not in header]
    if name is not None:
        made = {**weights.preprocessing(name), **made}
    elif missing:
        raise CdlError(
            f"{what}: its header's metadata lacks {missing}; if it contains a timm model, set "
            "backbones.NAME.model to that model's name"
        )
    model, prompted = build(name or families.PLAIN, arguments)
    kept = weights.convert(state, name or families.PLAIN, model, what, drop_unknown=not prompted)
    return kept, {**_how_to_build(name, arguments, model, prompted), **made}


def _parse_normalization(what: str, header: Mapping[str, str]) -> dict[str, list[float]]:
    """Return mean and std if a header has them, with or without brackets."""
    found = {}
    for key in ("mean", "std"):
        if key in header:
            try:
                found[key] = [float(x) for x in re.sub(r"[\[\](),]", " ", header[key]).split()]
            except ValueError as error:
                raise CdlError(f"{what}: its header's metadata: {key}: {error}") from error
    if any(len(v) != 3 for v in found.values()) or min(found.get("std", [1.0])) <= 0:
        raise CdlError(f"{what}: invalid mean or std; expected three numbers each, std above 0")
    return found


def _from_timm(
    tag: str, fetching: Mapping[str, Any]
) -> tuple[Path, dict[str, Tensor], dict[str, Any]]:
    """Fetch the published weights of a tag, without timm's own loader."""
    made = weights.preprocessing(tag)
    config = timm.get_pretrained_cfg(tag)
    if config is None or not config.hf_hub_id:
        raise CdlError(f"timm {timm.__version__} has no published weights for backbone {tag!r}")
    repository, _, revision = config.hf_hub_id.partition("@")
    name = config.hf_hub_filename or "model.safetensors"
    file = Published(f"{tag}.safetensors", Hub(repository, name, revision or "main"))
    (path,) = obtain([file], WEIGHTS, **fetching)
    state, _ = weights.read(path, "; delete it and run again")
    remember(file, path)
    built, prompted = build(tag)
    state = weights.convert(state, tag, built, f"backbone {tag!r}", drop_unknown=not prompted)
    return path, state, {**_how_to_build(tag, {}, built, prompted), **made}


def _from_transformers(
    source: str,
    model: str,
    pooling: str | None,
    revision: str | None,
    fetching: Mapping[str, Any],
) -> tuple[Path, dict[str, Tensor], dict[str, Any]]:
    """Read a text encoder from its folder, or fetch it; see `fetch`."""
    from cdl.backbones import encoders

    what = f"backbone {model!r}"
    found = encoder_files(source, model, revision, fetching)
    config, path, tokenizer = (found[name] for name in pretrained.FILES)
    if pooling is None:
        try:
            found |= encoder_files(source, model, revision, fetching, (pretrained.POOLING,))
            pooling = pretrained.read_pooling(found[pretrained.POOLING])
        except CdlError as error:
            raise CdlError(
                f"{what}: its pooling is unknown ({error}); set backbones.NAME.pooling to mean or "
                "cls, as its model card says"
            ) from error
    state, _ = weights.read(path, "; delete it and run again")
    read = pretrained.read_config(config)
    state, made = encoders.convert(read, state, tokenizer.read_bytes(), pooling, what)
    del found[pretrained.TENSORS]
    others = {name: artifacts.fingerprint_file(file) for name, file in found.items()}
    return path, state, made | {"other_files": others}


def encoder_files(
    source: str,
    model: str,
    revision: str | None,
    fetching: Mapping[str, Any],
    names: Sequence[str] = pretrained.FILES,
) -> dict[str, Path]:
    """Return the paths of files of a text encoder by their names; fetch those of the Hub.

    Raises:
        CdlError: a file is missing, cannot be fetched, or differs from the one fetched first.
    """
    folder = pretrained.folder_of(source, model, revision)
    if source == "folder":
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise CdlError(f"{folder} has no file {missing[0]}")
        return {name: folder / name for name in names}
    stored = pretrained.named(model, revision)
    files = [Published(f"{stored}/{name}", Hub(model, name, revision or "main")) for name in names]
    found = obtain(files, WEIGHTS, **fetching)
    for file, path in zip(files, found, strict=True):
        remember(file, path)
    return dict(zip(names, found, strict=True))


def keep_shape(model: str, revision: str | None = None, **fetching: Any) -> Path:
    """Fetch a text encoder of the Hub and keep what planning reads in `WEIGHTS`; return the folder.

    `fetching` has arguments of `cdl.runtime.fetching.obtain`.

    Raises:
        CdlError: see `encoder_files`.
    """
    folder = pretrained.folder_of("hf", model, revision)
    found = encoder_files("hf", model, revision, fetching)
    for name in (pretrained.CONFIG, pretrained.TOKENIZER):
        if found[name] != folder / name:
            with artifacts.replacing(folder / name) as temporary:
                shutil.copyfile(found[name], temporary)
    pretrained.shape_in(folder)
    return folder


def build(model: str, arguments: Mapping[str, Any] | None = None) -> tuple[Any, bool]:
    """Return a model on the meta device, and whether it can be prompted.

    Raises:
        CdlError: timm cannot build it, or it gives no feature vector.
    """
    made = families.create(model, arguments, device="meta")
    try:
        families.validate(made)
        return made, True
    except CdlError:
        pass  # its feature can be read if it is one vector
    try:
        extractor.validate(made, extractor.input_size(made))
    except CdlError as error:
        raise CdlError(f"{model!r}: {error}; use for example {similar(model)}") from error
    return made, False


def _how_to_build(
    name: str | None, arguments: Mapping[str, Any], model: Any, prompted: bool
) -> dict[str, Any]:
    """Return how a model is built again, for the metadata of its artifact.

    Args:
        name: timm's name, with a tag if it has one; None for a plain ViT.
        arguments: given by the header of a file.
        model: the model.
        prompted: see `build`.
    """
    if not prompted:  # with its tag, which has the size of its input
        return {"timm_model": name, "architecture": dict(arguments), FEATURES: True}
    if name is None:
        return {"timm_model": families.PLAIN, "architecture": dict(arguments)}
    height, width = model.patch_embed.img_size
    of_tag = {
        "img_size": height if height == width else [height, width],
        "global_pool": model.global_pool,
        "dynamic_img_size": False,  # dynamic input sizes are not used
    }
    return {"timm_model": name.split(".")[0], "architecture": {**arguments, **of_tag}}
