"""The interface of a student, from images to classes, and the images that it takes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cdl.data.sources.decoding import decode, upright
from cdl.runtime.errors import CdlError

Picture = str | PathLike[str] | Image.Image | np.ndarray
Pictures = Picture | Iterable[Picture]
BATCH = 32  # images
MOST_PIXELS = 2**22  # of the images that are in memory, unless the last of them is larger


class Classifier(ABC):
    """A student that has finished learning.

    Images are paths, Pillow images or uint8 arrays `[H, W, 3]`; a single one or several of any
    sizes. They are rotated upright by EXIF and put on white if transparent, like training images.

    Attributes:
        classes: class names in the order in which they were learnt, the order of all columns.
    """

    classes: tuple[str, ...]

    @abstractmethod
    def preprocess(self, images: Pictures) -> Any:
        """Return the input of `logits`."""

    @abstractmethod
    def logits(self, batch: Any) -> np.ndarray:
        """Return logits `[n, C]` of the output of `preprocess`."""

    def predict_proba(self, images: Pictures) -> np.ndarray:
        """Return probabilities `[n, C]` of all classes, in fp32.

        Raises:
            CdlError: an image cannot be read or is invalid.
        """
        run: Callable[[list[np.ndarray]], np.ndarray]
        run = lambda some: self.logits(self.preprocess(some))  # noqa: E731
        return probabilities(in_batches(images, run, len(self.classes)))

    def best(self, image: Picture, n: int) -> list[tuple[str, float]]:
        """Return the `n` most probable classes of an image with their probabilities.

        Among equal probabilities the class learnt first comes first, as in `predict`.
        """
        (found,) = self.predict_proba(image)
        order = (-found).argsort(kind="stable")[:n]
        return [(self.classes[i], float(found[i])) for i in order]

    def predict(self, images: Pictures) -> list[str]:
        """Return the most probable class of each image; see `predict_proba`."""
        return [self.classes[best] for best in self.predict_proba(images).argmax(1)]


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Return the softmax of logits `[n, C]`; raise `CdlError` if they are not finite."""
    if not np.isfinite(logits).all():
        raise CdlError("the model's output is not finite, so no class can be predicted")
    exp = np.exp(logits - logits.max(1, keepdims=True))
    found: np.ndarray = exp / exp.sum(1, keepdims=True)
    return found


def in_batches(
    images: Pictures, function: Callable[[list[np.ndarray]], np.ndarray], *shape: int
) -> np.ndarray:
    """Return the results `[n, *shape]` in fp32 of a function of images of one size.

    Raises:
        CdlError: an image is unreadable or invalid.
    """
    given = several(images)
    found = np.zeros((len(given), *shape), np.float32)
    for rows, pixels in batches(given):
        found[rows] = function(pixels)
    return found


def read(image: Picture) -> np.ndarray:
    """Return an image as uint8 `[H, W, 3]`; raise `CdlError` if it is unreadable or invalid."""
    if isinstance(image, Image.Image):
        try:
            return upright(image, "the image")
        except OSError as error:  # Pillow reads the file only now
            raise CdlError(f"the image cannot be read ({error})") from error
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise CdlError(
                f"image: invalid array {image.dtype} {list(image.shape)}; expected uint8 "
                "[height, width, 3]"
            )
        return image
    try:
        return decode(Path(image).read_bytes(), str(image))
    except OSError as error:
        raise CdlError(f"{image}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # a name with NUL or with half of a surrogate pair
        raise CdlError(f"{str(image)!r}: cannot be read ({error})") from error


def several(images: Pictures) -> list[Picture]:
    """Return a list of images, also for a single image."""
    if isinstance(images, np.ndarray):
        return [images] if images.ndim == 3 else list(images)
    if isinstance(images, str | PathLike | Image.Image):
        return [images]
    return list(images)


def batches(images: Iterable[Picture]) -> Iterator[tuple[list[int], list[np.ndarray]]]:
    """Yield positions and pixels of images of the same size: up to `BATCH` and `MOST_PIXELS`."""
    held: dict[tuple[int, ...], dict[int, np.ndarray]] = {}
    for position, image in enumerate(map(read, images)):
        held.setdefault(image.shape, {})[position] = image
        if sum(image.size for own in held.values() for image in own.values()) > 3 * MOST_PIXELS:
            yield from ((list(own), list(own.values())) for own in held.values())
            held = {}
        elif len(held[image.shape]) == BATCH:
            own = held.pop(image.shape)
            yield list(own), list(own.values())
    yield from ((list(own), list(own.values())) for own in held.values())
