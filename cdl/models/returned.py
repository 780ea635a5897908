"""Check what methods and distillers, also of other packages, are built with and return."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from cdl.backbones.shape import BackboneShape
from cdl.backbones.vit import Injection
from cdl.methods.base import Prompts
from cdl.runtime.errors import CdlError
from cdl.runtime.facts import Facts

_PROMPTS = "expected cdl.methods.base.Prompts(prefixes, additions, losses, inside)"
_PREFIXES = "expected prefixes {block: (keys, values)}, each [B or 1, length / 2, width]"
_LOSSES = "expected a dict of losses by name, each a tensor with one number, such as {'ce': loss}"


def built(kind: Any, base: type[nn.Module], facts: Facts, context: Any, options: Any) -> Any:
    """Return a method or distiller, built with its context and options.

    Raises:
        CdlError: its class has another base or other arguments than its facts say.
    """
    if not (isinstance(kind, type) and issubclass(kind, base)):
        raise CdlError(f"{facts.path}: is not a subclass of {base.__module__}.{base.__name__}")
    try:
        inspect.signature(kind).bind(context, **options)
    except TypeError as error:
        names = ", ".join(["context", *options])
        raise CdlError(f"{facts.path}: {error}; its facts give it {names}") from None
    return kind(context, **options)


def prompts_of(found: object, method: nn.Module, shape: BackboneShape) -> Prompts:
    """Return what `forward` of a method has returned.

    Raises:
        CdlError: it is not `Prompts`, or its prefixes do not fit a backbone of a shape.
    """
    where = f"{type(method).__name__}.forward returned"
    if not isinstance(found, Prompts):
        raise CdlError(f"{where} {_described(found)}; {_PROMPTS}")
    if not isinstance(found.prefixes, Mapping):
        raise CdlError(f"{where} prefixes of {_described(found.prefixes)}; {_PREFIXES}")
    for block, pair in found.prefixes.items():
        known = isinstance(block, int) and 0 <= block < shape.depth
        parts = pair if isinstance(pair, tuple | list) and len(pair) == 2 else (None,)
        for part in parts:
            fits = isinstance(part, Tensor) and part.ndim == 3 and part.shape[2] == shape.width
            if not (known and fits):
                what = _described(pair if part is None else part)
                size = f"blocks 0 to {shape.depth - 1}, width {shape.width}"
                raise CdlError(f"{where} for block {block!r} {what}; {_PREFIXES} ({size})")
    return found


def injection_of(found: object, distiller: nn.Module) -> Injection:
    """Return what `inject` of a distiller has returned; raise `CdlError` for another type."""
    if not isinstance(found, Injection):
        raise CdlError(
            f"{type(distiller).__name__}.inject returned {_described(found)}; expected "
            "cdl.backbones.vit.Injection"
        )
    return found


def losses_of(found: object, distiller: nn.Module) -> dict[str, Tensor]:
    """Return what `forward` of a distiller has returned; raise `CdlError` if it has no losses."""
    where = f"{type(distiller).__name__}.forward returned"
    if not isinstance(found, dict) or not found:
        raise CdlError(f"{where} {_described(found)}; {_LOSSES}")
    for name, loss in found.items():
        if not (isinstance(name, str) and isinstance(loss, Tensor) and loss.ndim == 0):
            raise CdlError(f"{where} as {name!r} {_described(loss)}; {_LOSSES}")
    return found


def rows_of(found: object, head: nn.Module) -> dict[str, Tensor]:
    """Return what `learn` of a head has returned; raise `CdlError` if it is no dict of tensors."""
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
        raise CdlError(
            f"{type(head).__name__}.learn returned {_described(found)}; expected a dict of tensors "
            "by name, each with a row for each class"
        )
    return found


def _described(found: object) -> str:
    """Return the type of a value, and the shape of a tensor."""
    if isinstance(found, Tensor):
        return f"a tensor of shape {list(found.shape)}"
    if isinstance(found, tuple | list | dict):
        return f"a {type(found).__name__} of {len(found)}"
    return "None" if found is None else f"a {type(found).__name__}"
