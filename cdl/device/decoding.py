"""Decode image files to upright 8-bit RGB pixels without transparency.

* The EXIF orientation is applied, as in image viewers.
* Transparent pixels are composited on white.
* 16-bit greyscale is scaled from 0..65535 (or the full range of its bits) to 0..255, floating
  point from 0..1. 32-bit integers do not define a white level; they are refused, as are floats
  outside 0..1.
* The first image is used of an animation or a file with several pages.
* A JPEG above the limit of pixels is decoded at a half, a quarter or an eighth of its sides, other
  formats are refused.
* If a largest number of pixels is given, images of other formats are reduced by averaging 2 x 2,
  4 x 4 or 8 x 8 pixels, with as few copies in full size as possible.
* Any other mode (palette, grey, CMYK) is converted to RGB by Pillow.
"""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.TiffTags import TAGS_V2

from cdl.device.errors import CdlError, Unreadable

# Only formats whose decoders work in this process on the given bytes: none starts another program
# (as EPS does) or opens other files.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_BITS, _PHOTOMETRIC = (
    next(tag for tag, info in TAGS_V2.items() if info.name == name)
    for name in ("BitsPerSample", "PhotometricInterpretation")
)
_ORIENTATION = ExifTags.Base.Orientation
_WHITE = (255, 255, 255, 255)
LARGEST_PIXELS, LARGEST_SIDE = 2**24, 2**14  # of a decoded image: 48 MiB
_ROWS = 256  # of greyscale that are converted at once


def suffixes() -> set[str]:
    """Return the suffixes of files in these formats, in lower case."""
    return {end for end, kind in Image.registered_extensions().items() if kind in FORMATS}


def images_below(folder: str | Path) -> list[Path]:
    """List all images of a folder, at any depth; raise `CdlError` if there is none."""
    known = suffixes()
    found = [path for path in sorted(Path(folder).rglob("*")) if path.suffix.lower() in known]
    if not found:
        raise CdlError(f"{folder}: contains no image; expected {', '.join(FORMATS)}")
    return found


def decode(raw: bytes, name: str, most_pixels: int = LARGEST_PIXELS) -> np.ndarray:
    """Return an encoded image as `[H, W, 3]` uint8.

    Args:
        raw: content of the file.
        name: name in messages.
        most_pixels: an image with more is made smaller.

    Raises:
        Unreadable: the image is damaged, has an unsupported format, is larger than
            `LARGEST_PIXELS` or `LARGEST_SIDE`, or does not define a white level.
    """
    if not isinstance(raw, bytes):
        kind = "null" if raw is None else type(raw).__name__
        raise Unreadable(f"{name} contains {kind}; expected the bytes of an image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(raw), formats=FORMATS) as image:
                _decode_smaller(image, most_pixels)
                _check_size(image, name)
                ImageOps.exif_transpose(image, in_place=True)
                return _rgb(image, name, most_pixels)
    except CdlError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise Unreadable(f"{name} is refused ({error}); remove it or store it smaller") from error
    except UnidentifiedImageError as error:
        known = ", ".join(FORMATS)
        raise Unreadable(
            f"{name} is not a readable image (expected one of the formats {known})"
        ) from error
    except Exception as error:  # decoders raise errors of any type on damaged bytes
        reason = str(error) or type(error).__name__
        raise Unreadable(f"{name} is not a readable image ({reason})") from error


def upright(image: Image.Image, name: str, most_pixels: int = LARGEST_PIXELS) -> np.ndarray:
    """Return an image that Pillow opened as `[H, W, 3]` uint8, like `decode`.

    The image itself is not changed.

    Raises:
        Unreadable: the image is too large, or does not define a white level.
    """
    _check_size(image, name)
    if image.getexif().get(_ORIENTATION, 1) == 1:
        return _rgb(image, name, most_pixels)
    return _rgb(ImageOps.exif_transpose(image), name, most_pixels)


def _decode_smaller(image: Image.Image, most_pixels: int) -> None:
    """Let a JPEG that is too large be decoded at a half, a quarter or an eighth of its sides."""
    (width, height), scale = image.size, _scale(image.size, most_pixels)
    if scale > 1 and image.format in ("JPEG", "MPO"):
        image.draft(None, (max(1, width // scale), max(1, height // scale)))


def _scale(size: tuple[int, int], most_pixels: int) -> int:
    """Return by how much sides are divided, up to 8, for an image of at most so many pixels."""
    (width, height), scale = size, 1
    while scale < 8 and (
        width * height > most_pixels * scale**2 or max(width, height) > LARGEST_SIDE * scale
    ):
        scale *= 2
    return scale


def _check_size(image: Image.Image, name: str) -> None:
    if image.width * image.height > LARGEST_PIXELS or max(image.size) > LARGEST_SIDE:
        raise Unreadable(
            f"{name} is refused: it has {image.width} x {image.height} pixels, "
            f"{3 * image.width * image.height / 2**20:.0f} MiB decoded; expected at most "
            f"{3 * LARGEST_PIXELS >> 20} MiB and sides up to {LARGEST_SIDE}; store it smaller, or "
            "as JPEG, which is decoded smaller"
        )


def _rgb(image: Image.Image, name: str, most_pixels: int) -> np.ndarray:
    scale = _scale(image.size, most_pixels)
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        image = Image.fromarray(_grey(image, name))
    elif image.has_transparency_data:
        clear = image if image.mode == "RGBA" else image.convert("RGBA")
        clear = clear.reduce(scale) if scale > 1 else clear
        image, scale = Image.new("RGBA", clear.size, _WHITE), 1
        image.alpha_composite(clear)
    elif image.mode != "RGB" and scale > 1:
        image = image.convert("RGB")
    return np.asarray((image.reduce(scale) if scale > 1 else image).convert("RGB"))


def _grey(image: Image.Image, name: str) -> np.ndarray:
    """Return greyscale of more than eight bits as `[H, W]` uint8."""
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    white = float(2 ** max(tags.get(_BITS, (16,))) - 1)
    if image.mode == "F":
        white = 1.0
        if not (np.isfinite(values).all() and 0 <= values.min() and values.max() <= 1):
            raise Unreadable(
                f"{name} contains floating-point numbers outside 0 to 1, which do not define a "
                "white level; store it with 8 or 16 bits"
            )
    elif (
        image.mode == "I" and image.format != "PNG"
    ):  # a PNG in mode I has 16 bits in Pillow before 11.3
        raise Unreadable(
            f"{name} contains signed or 32-bit integers, which do not define a white level; store "
            "it with 8 or 16 bits"
        )
    grey = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), _ROWS):  # eight bytes of a pixel at a time
        rows = slice(start, start + _ROWS)
        grey[rows] = np.rint(values[rows] * np.float64(255 / white))
    if tags.get(_PHOTOMETRIC) == 0 and image.mode != "F":  # WhiteIsZero
        grey = 255 - grey
    return np.where(values == image.info.get("transparency"), np.uint8(255), grey)
