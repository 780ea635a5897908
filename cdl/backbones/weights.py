"""Read files of weights without running their code; convert to timm's names."""

import logging
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import timm
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from cdl.runtime.errors import CdlError

log = logging.getLogger(__name__)

_CONTAINERS = ("state_dict", "model", "teacher", "target_encoder", "model_ema", "encoder")
_DEPTH = 5  # containers in containers; a damaged one may contain itself
_PREFIXES = ("module.", "backbone.", "base_encoder.", "momentum_encoder.", "encoder.", "model.")
_COUNTERS = "num_batches_tracked"  # of batch norms
_HEADS = ("head.", "head_dist.", "attn_pool.")  # of a classifier, or of another way of pooling


def read(path: Path, remedy: str = "") -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file and its header's metadata.

    Raises:
        CdlError: the file cannot be read; `remedy` ends the message.
    """
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return state, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise CdlError(f"backbone file {str(path)!r} cannot be read: {error}{remedy}") from error


def read_pickled(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a `.pth` or `.bin` file; no code in it is run.

    Raises:
        CdlError: the file cannot be read, or contains more than tensors and plain values.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damaged bytes, which raise an error
            found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CdlError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    except Exception as error:  # torch raises errors of any type on damaged bytes
        if isinstance(error, UnpicklingError) and "global" in str(error).lower():
            raise CdlError(
                f"{str(path)!r} contains more than tensors, and reading it would run code from the "
                "file; ask its authors for the state dict alone"
            ) from error
        raise CdlError(
            f"{str(path)!r} cannot be read: it is damaged, or not a file of torch.save; download "
            "it again"
        ) from error
    for _ in range(_DEPTH):
        if not isinstance(found, Mapping):
            break
        inner = next((key for key in _CONTAINERS if isinstance(found.get(key), Mapping)), None)
        if inner is None:
            break
        found = found[inner]
    state = {}
    if isinstance(found, Mapping):
        state = {str(k): v for k, v in found.items() if isinstance(v, Tensor) and _is_dense(v)}
    if not state:
        raise CdlError(f"{str(path)!r} contains no state dict, a mapping from names to tensors")
    return state


def _is_dense(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and not (tensor.is_quantized or tensor.is_meta)


def without_prefix(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Strip prefixes that training code adds to a model's names, such as `module.`.

    Tensors without the prefix are dropped; without a known prefix all are returned unchanged.
    """
    wanted, best = set(model.state_dict()), dict(state)
    while not wanted & set(best):
        prefix = next((p for p in _PREFIXES if any(k.startswith(p) for k in best)), None)
        if prefix is None:
            return dict(state)  # timm's own conversion may accept these names
        best = {k[len(prefix) :]: v for k, v in best.items() if k.startswith(prefix)}
    return best


def convert(
    state: Mapping[str, Tensor], name: str, model: nn.Module, what: str, drop_unknown: bool = False
) -> dict[str, Tensor]:
    """Return exactly the tensors of a model, with timm's conversion if it has one.

    Args:
        state: tensors as published.
        name: timm's name of the model.
        model: the model, on any device, also meta.
        what: subject of error messages, such as `backbone file 'x'`.
        drop_unknown: whether to drop all tensors that the model lacks, and not only those of heads;
            dropped tensors are logged.

    Raises:
        CdlError: a tensor is missing, unknown, or has another shape.
    """
    module = sys.modules[timm.model_entrypoint(name.split(".")[0]).__module__]
    conversion: Any = getattr(module, "checkpoint_filter_fn", None)
    try:
        made: dict[str, Tensor] = conversion(dict(state), model) if conversion else dict(state)
    except Exception as error:  # timm's conversions expect the shapes of the model
        raise CdlError(f"{what} does not have the tensors of timm's {name} ({error})") from error
    wanted = model.state_dict()
    extra = [k for k in made if k not in wanted]
    unknown = [] if drop_unknown else [k for k in extra if not k.startswith(_HEADS)]
    missing = [k for k in wanted if k not in made]
    differing = [
        f"{k} {tuple(made[k].shape)}, expected {tuple(t.shape)}"
        for k, t in wanted.items()
        if k in made and made[k].shape != t.shape
    ]
    wrong = [("missing", missing), ("unknown", unknown), ("wrong shape", differing)]
    problems = [f"{kind}: {_abbreviate(names)}" for kind, names in wrong if names]
    if problems:
        raise CdlError(f"{what} does not have the tensors of timm's {name}: {'; '.join(problems)}")
    if extra:
        log.info("%s: dropped %s", what, _abbreviate(extra))
    return {k: made[k] for k in wanted}


def check_values(state: Mapping[str, Tensor], what: str) -> None:
    """Raise `CdlError` unless all tensors are finite floating-point numbers."""
    for name, tensor in state.items():
        counter = name.endswith(_COUNTERS) and tensor.dtype == torch.int64
        if not (counter or (tensor.is_floating_point() and bool(tensor.isfinite().all()))):
            raise CdlError(
                f"{what}: invalid values in {name} ({tensor.dtype}); expected finite "
                "floating-point numbers"
            )


def dropped(state: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> list[str]:
    """Return the first components of tensor names of which no tensor was kept, sorted."""
    return sorted({k.split(".")[0] for k in state} - {k.split(".")[0] for k in kept})


def _abbreviate(names: list[str]) -> str:
    """Join names; after three, give the number of the others."""
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def preprocessing(model: str) -> dict[str, Any]:
    """Return mean, std and interpolation of a timm model, or of its tag if it has one.

    Raises:
        CdlError: timm does not have this model.
    """
    try:
        config = timm.get_pretrained_cfg(model)
    except RuntimeError as error:
        raise CdlError(f"timm {timm.__version__} has no backbone {model!r}") from error
    if config is None:
        raise CdlError(f"timm {timm.__version__} has no backbone {model!r}")
    return {
        "mean": list(config.mean),
        "std": list(config.std),
        "interpolation": config.interpolation,
    }
