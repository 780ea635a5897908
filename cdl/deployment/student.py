"""What a student is to those who use it: images in, classes out. No torch.

An exported one is asked with onnxruntime, Pillow and numpy alone.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cdl.data.sources.decoding import decode, upright
from cdl.runtime.errors import CdlError

Picture = str | PathLike[str] | Image.Image | np.ndarray
Pictures = Picture | Iterable[Picture]
_BATCH = 32
MODEL, PROGRAM = "model.onnx", "model.pte"  # of ONNX, of ExecuTorch
CLASSES, PREPROCESSING, CARD = "classes.txt", "preprocessing.json", "card.md"
Ask = Callable[[np.ndarray], np.ndarray]


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


class ExportedStudent(Student):
    """What `cdl export` wrote; the view is made in the graph, of images of one size at a time."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        """Open the graph.

        Args:
            folder: it holds `model.onnx` or `model.pte`, and `classes.txt`.
            threads: that compute; ExecuTorch decides itself.

        Raises:
            CdlError: what runs it is not installed, or a file is missing or damaged.
        """
        again = "export it again"
        try:
            self.classes = tuple((folder / CLASSES).read_text(encoding="utf-8").splitlines())
            self.about = json.loads((folder / PREPROCESSING).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CdlError(f"{folder} is no exported student ({error}); {again}") from error
        open_graph = _open_executorch if (folder / PROGRAM).exists() else _open_onnx
        self._ask, known = open_graph(folder, threads)
        if known not in (None, len(self.classes)):
            raise CdlError(
                f"{folder / CLASSES} names {len(self.classes)} classes, but {MODEL} knows "
                f"{known}; {again}"
            )

    def preprocess(self, images: Pictures) -> np.ndarray:
        """Return pixels `[n, H, W, 3]` uint8 of images of one size; resizing is in the graph.

        Raises:
            CdlError: an image cannot be read, or they differ in size.
        """
        pixels = [read(image) for image in several(images)]
        sizes = {image.shape[:2] for image in pixels}
        if len(sizes) > 1:
            raise CdlError(f"images: those of a batch have one size, these {len(sizes)}")
        found, most = (len(pixels), *max(sizes)), self.about.get("input", {}).get("most", ())
        if any(n > limit for n, limit in zip(found, most, strict=False)):
            raise CdlError(f"images: {found} of number, height, width; {PROGRAM} takes {most}")
        return np.stack(pixels)

    def logits(self, batch: np.ndarray) -> np.ndarray:
        """Return logits `[n, C]` of pixels."""
        return self._ask(batch)


def _open_onnx(folder: Path, threads: int) -> tuple[Ask, int | None]:
    """Return what asks a graph of ONNX, and how many classes it knows."""
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise CdlError(
            "exported students are run by the package onnxruntime, which is not installed: "
            "pip install 'cdl-workbench[predict]'"
        ) from error
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(folder / MODEL, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # whatever onnxruntime says of damaged bytes
        raise CdlError(f"{folder / MODEL} cannot be read ({error}); export it again") from error
    (images,), (logits,) = session.get_inputs(), session.get_outputs()
    return lambda batch: np.asarray(session.run(None, {images.name: batch})[0]), logits.shape[-1]


def _open_executorch(folder: Path, threads: int) -> tuple[Ask, int | None]:
    """Return what asks a program of ExecuTorch; how many classes it knows, only answers say."""
    try:
        import torch
        from executorch.runtime import Runtime
    except ImportError as error:
        raise CdlError(
            f"{PROGRAM} is run by the package executorch, which is not installed: "
            "pip install 'cdl-workbench[executorch]'"
        ) from error
    program = Runtime.get().load_program(folder / PROGRAM)
    method = program.load_method("forward")

    def ask(batch: np.ndarray) -> np.ndarray:
        assert program, "the method reads its memory"
        (logits,) = method.execute([torch.from_numpy(batch)])
        return np.array(logits.numpy())

    return ask, None


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
