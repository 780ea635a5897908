"""Images as users of Python have them: arrays of several kinds become paths, Pillow or RGB."""

from os import PathLike
from typing import Any

import numpy as np
from PIL import Image

from cdl.device.images import Picture
from cdl.runtime.errors import CdlError

EXPECTED = (
    "expected paths, Pillow images, or arrays and tensors of uint8, or of floats from 0 to 1: "
    "[height, width], [height, width, 3 or 4], tensors [3, height, width], or several of one size"
)
_ROUNDING = 1e-3  # how far floats may be outside 0 to 1
_LAST, _FIRST = (1, 3, 4), (1, 3)  # numbers of channels of arrays, and of tensors


def pictures(given: Any) -> list[Picture]:
    """Return a list of images that every student reads.

    A single image gives a list of one. Channels are last in arrays and first in tensors, as numpy
    and torch have them; an array `[n, height, width]` is `n` grey images.

    Raises:
        CdlError: what is given is no image, or has values outside its range.
    """
    if isinstance(given, str | PathLike | Image.Image):
        return [given]
    if isinstance(given, bytes):
        raise CdlError(f"images: bytes of length {len(given)}; {EXPECTED}")
    if _is_array(given):
        return _of_array(given)
    try:
        every = list(given)
    except TypeError:
        raise CdlError(f"images: are of type {type(given).__name__}; {EXPECTED}") from None
    return [picture for one in every for picture in _one(one)]


def _one(item: Any) -> list[Picture]:
    """Return an item of a list, which is one image, as a list."""
    found = pictures(item) if _is_array(item) or isinstance(item, str | PathLike) else [item]
    if len(found) != 1:
        raise CdlError(f"image: invalid shape {list(item.shape)} inside a list; {EXPECTED}")
    if not isinstance(found[0], str | PathLike | Image.Image | np.ndarray):
        raise CdlError(f"image: is of type {type(item).__name__}; {EXPECTED}")
    return found


def _is_array(given: Any) -> bool:
    """Return whether it is an array of numpy or a tensor of torch, which is not imported here."""
    return isinstance(given, np.ndarray) or _is_tensor(given)


def _is_tensor(given: Any) -> bool:
    return type(given).__module__.partition(".")[0] == "torch" and hasattr(given, "detach")


def _of_array(given: Any) -> list[Picture]:
    """Return the images of an array or a tensor."""
    tensor = _is_tensor(given)
    array: np.ndarray = given.detach().cpu().numpy() if tensor else given
    if array.dtype.kind in "OU" and array.ndim <= 1:  # paths, or images of unequal sizes
        return pictures(array.tolist())
    known = _FIRST if tensor else _LAST
    coloured = array.ndim > 2 and array.shape[-3 if tensor else -1] in known
    if coloured and tensor:
        array = np.moveaxis(array, -3, -1)
    single = 3 if coloured else 2
    if array.ndim not in (single, single + 1) or (tensor and array.ndim > 2 and not coloured):
        raise CdlError(f"images: invalid shape {list(given.shape)}; {EXPECTED}")
    if not array.size and array.ndim == single + 1:
        return []
    pixels = _as_uint8(array)
    several = pixels[None] if pixels.ndim == single else pixels
    return [_rgb(one) for one in several]


def _as_uint8(array: np.ndarray) -> np.ndarray:
    """Return pixels as uint8; raise `CdlError` for other integers and values out of range."""
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f":
        raise CdlError(f"image: invalid type {array.dtype}; {EXPECTED}")
    low, high = (float(f(array)) for f in (np.min, np.max)) if array.size else (0.0, 0.0)
    if not (-_ROUNDING <= low and high <= 1 + _ROUNDING):  # also for NaN
        raise CdlError(
            f"image: has values from {low:.3g} to {high:.3g}, as after a normalisation; {EXPECTED}"
        )
    found: np.ndarray = np.rint(array.clip(0, 1) * 255).astype(np.uint8)
    return found


def _rgb(pixels: np.ndarray) -> Picture:
    """Return uint8 `[H, W]` or `[H, W, 1, 3 or 4]` as RGB `[H, W, 3]`, or Pillow if transparent."""
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        return Image.fromarray(np.ascontiguousarray(pixels), "RGBA")
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        grey = pixels.reshape(*pixels.shape[:2], 1)
        return np.repeat(grey, 3, axis=2)
    return np.ascontiguousarray(pixels)
