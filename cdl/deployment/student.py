"""What a student is to those who use it: images in, classes out. No torch."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cdl.runtime.errors import CdlError
from cdl.sources.decoding import decode, upright

Picture = str | PathLike[str] | Image.Image | np.ndarray
Pictures = Picture | Iterable[Picture]
_BATCH = 32
MODEL, CLASSES, PREPROCESSING, CARD = (
    "model.onnx", "classes.txt", "preprocessing.json", "card.md",
)  # fmt: skip


class Student(ABC):
    """A student that has finished learning.

    Images are paths, Pillow's images or uint8 arrays `[H, W, 3]`; one, or any number of them in
    any sizes. They are turned upright and lose their transparency as training images do.

    Attributes:
        classes: names in the order in which they were learnt, that of all columns.
    """

    classes: tuple[str, ...]

    @abstractmethod
    def preprocess(self, images: Pictures) -> Any:
        """Return the batch that `logits` takes."""

    @abstractmethod
    def logits(self, batch: Any) -> np.ndarray:
        """Return logits `[n, C]` of a batch that `preprocess` made."""

    def predict_proba(self, images: Pictures) -> np.ndarray:
        """Return probabilities `[n, C]` of all classes, in fp32.

        Raises:
            CdlError: an image cannot be read, or is no image.
        """
        pixels = [read(image) for image in several(images)]
        found = np.zeros((len(pixels), len(self.classes)), np.float32)
        for rows in batches(pixels):
            logits = self.logits(self.preprocess([pixels[row] for row in rows]))
            exp = np.exp(logits - logits.max(1, keepdims=True))
            found[rows] = exp / exp.sum(1, keepdims=True)
        return found

    def predict(self, images: Pictures) -> list[str]:
        """Return the most probable class of each image; raise as `predict_proba`."""
        return [self.classes[best] for best in self.predict_proba(images).argmax(1)]


def read(image: Picture) -> np.ndarray:
    """Return an image as `[H, W, 3]` uint8; raise `CdlError` if it cannot be read or is none."""
    if isinstance(image, Image.Image):
        return upright(image, "the image")
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise CdlError(
                f"an image is an array of {image.dtype} {list(image.shape)}; needed is uint8 "
                "[height, width, 3]"
            )
        return image
    try:
        return decode(Path(image).read_bytes(), str(image))
    except OSError as error:
        raise CdlError(f"{image} cannot be read ({error.strerror})") from error


def several(images: Pictures) -> list[Picture]:
    """Return a list of images, also of one."""
    if isinstance(images, np.ndarray):
        return [images] if images.ndim == 3 else list(images)
    if isinstance(images, str | PathLike | Image.Image):
        return [images]
    return list(images)


def batches(pixels: Sequence[np.ndarray]) -> list[list[int]]:
    """Return positions of images, those of one size together, a few at a time."""
    sizes: dict[tuple[int, ...], list[int]] = {}
    for position, image in enumerate(pixels):
        sizes.setdefault(image.shape, []).append(position)
    return [rows[i : i + _BATCH] for rows in sizes.values() for i in range(0, len(rows), _BATCH)]


def load(path: str | PathLike[str], task: int | None = None, threads: int = 1) -> Student:
    """Load a student, see `cdl.load`."""
    path = Path(path)
    if not path.is_dir():
        raise CdlError(f"{path} is no folder; needed is that of a finished run or of an export")
    if (path / MODEL).exists():
        from cdl.deployment.exported import ExportedStudent

        if task is not None:
            raise CdlError(f"task: {task}, but {path} was exported after one task; load its run")
        return ExportedStudent(path, threads)
    from cdl.study.layout import RunFiles

    results = Path(RunFiles(str(path)).results)
    if not results.exists():
        raise CdlError(f"{path} is no finished run: it holds no {results.name}")
    from cdl.deployment.trained import TrainedStudent

    return TrainedStudent.open(path, task, threads)
