"""What a source yields, and how the bytes of an image become pixels."""

import io
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from cdl.runtime.errors import CdlError

SPLITS = ("train", "test")
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")  # decoders that start no other program


@dataclass(frozen=True)
class Item:
    """One image: split, label, a name for error messages, and how to read its pixels."""

    split: str
    label: int
    name: str
    read: Callable[[], np.ndarray]  # [H, W, 3] uint8


@dataclass(frozen=True)
class Source:
    """Class names in label order and the items of both splits."""

    classes: tuple[str, ...]
    items: Iterable[Item]


def class_names(names: dict[int, str], path: str) -> tuple[str, ...]:
    """Return names in label order; raise `CdlError` if the labels do not run from 0."""
    missing = sorted(set(range(len(names))) - set(names))
    if missing:
        raise CdlError(
            f"{path}: {len(names)} classes but none has label {missing[0]}; labels "
            "must run from 0 without a gap"
        )
    return tuple(names[i] for i in range(len(names)))


def decode(raw: bytes, name: str) -> np.ndarray:
    """Return an encoded image as `[H, W, 3]` uint8.

    Raises:
        CdlError: it is damaged, or larger than Pillow's limit of 89 million pixels.
    """
    if not isinstance(raw, bytes):
        raise CdlError(f"{name} holds {type(raw).__name__}, not the bytes of an image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(raw), formats=FORMATS) as image:
                return np.asarray(image.convert("RGB"))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise CdlError(f"{name} is refused ({error}); remove it or store it smaller") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise CdlError(f"{name} is not a readable image ({error})") from error
