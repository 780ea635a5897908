"""Frozen vision transformers by name: embedded, a local safetensors file, or a timm tag.

`fetch` brings a backbone into one uniform artifact (tensors, architecture, normalisation,
fingerprint) and is the only function that may use the network; `Backbone.load` reads it.
Weights are read as safetensors only, never unpickled.
"""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cdl.backbones.frozen import build_vit
from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError
from cdl.runtime.fetching import Published, obtain, remember

WEIGHTS = Path("data/backbones")  # of timm tags, TAG.safetensors
_SHAPE = ("img_size", "patch_size", "embed_dim", "depth", "num_heads")


def fetch(output: str | Path, source: str, model: str, **fetching: Any) -> None:
    """Write a backbone artifact.

    Args:
        output: the .safetensors file to write.
        source: `embedded`, `file` or `timm`.
        model: a name in `cdl/assets`; a path of a .safetensors file with timm's key names and
            `_SHAPE`, mean and std in its header; or a full timm tag such as
            `vit_base_patch16_224.augreg_in21k_ft_in1k`.
        fetching: `mirror` and `offline` of `cdl.runtime.fetching.obtain`, for a tag.

    Raises:
        CdlError: the source cannot be read or fetched, or is no plain ViT with a class token.
    """
    if source == "timm":
        path, state, architecture, mean, std = _from_timm(model, fetching)
    else:
        assets = Path(str(files("cdl") / "assets"))
        path = assets / f"{model}.safetensors" if source == "embedded" else Path(model)
        state, architecture, mean, std = _from_file(path)
    try:
        vit = build_vit(architecture)
        vit.load_state_dict(state)
    except (RuntimeError, ValueError, ArithmeticError, AssertionError) as error:
        raise CdlError(
            f"backbone {model!r} does not have the tensors of a plain timm ViT of "
            f"shape {architecture}: {error}"
        ) from error
    metadata = {
        "model": model,
        "architecture": architecture,
        "mean": mean,
        "std": std,
        "file_sha256": artifacts.fingerprint_file(path),
        "fingerprint": artifacts.fingerprint_tensors(state),
    }
    artifacts.save(output, state, metadata)


def _read(path: Path, remedy: str = "") -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file and its header's metadata."""
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return state, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise CdlError(f"backbone file {str(path)!r} cannot be read: {error}{remedy}") from error


def _from_file(
    path: Path,
) -> tuple[dict[str, Tensor], dict[str, Any], list[float], list[float]]:
    state, header = _read(path)
    missing = [key for key in (*_SHAPE, "mean", "std") if key not in header]
    if missing:
        raise CdlError(f"backbone file {str(path)!r} lacks {missing} in its header's metadata")
    try:
        architecture = {key: int(header[key]) for key in _SHAPE}
        mean, std = ([float(x) for x in header[key].split()] for key in ("mean", "std"))
    except ValueError as error:
        raise CdlError(f"backbone file {str(path)!r}: its header's metadata: {error}") from error
    if not len(mean) == len(std) == 3 or min(std) <= 0:
        raise CdlError(f"backbone file {str(path)!r}: mean and std are three numbers, std above 0")
    return state, architecture, mean, std


def _from_timm(
    tag: str, fetching: Mapping[str, Any]
) -> tuple[Path, dict[str, Tensor], dict[str, Any], list[float], list[float]]:
    """Fetch the weights of a tag as timm names and publishes them; timm itself loads nothing."""
    import timm
    from huggingface_hub import hf_hub_url

    try:
        config = timm.get_pretrained_cfg(tag)
    except RuntimeError as error:  # a known model with an unknown tag
        raise CdlError(f"backbone {tag!r} is not known to timm {timm.__version__}") from error
    if config is None or not config.hf_hub_id:
        raise CdlError(f"timm {timm.__version__} has no published weights for backbone {tag!r}")
    name = config.hf_hub_filename or "model.safetensors"
    weights = Published(f"{tag}.safetensors", hf_hub_url(config.hf_hub_id, name))
    (path,) = obtain([weights], WEIGHTS, **fetching)
    state, _ = _read(path, "; delete it and run again")
    remember(weights, path)
    with torch.device("meta"):
        vit: Any = timm.create_model(tag.split(".")[0], pretrained=False, num_classes=0)
    architecture = {
        "img_size": vit.patch_embed.img_size[0],
        "patch_size": vit.patch_embed.patch_size[0],
        "embed_dim": vit.embed_dim,
        "depth": len(vit.blocks),
        "num_heads": vit.blocks[0].attn.num_heads,
    }
    state = {key: tensor for key, tensor in state.items() if not key.startswith("head.")}
    return path, state, architecture, list(config.mean), list(config.std)
