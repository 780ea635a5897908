"""The interface of a student (images to classes), and students exported to ONNX or ExecuTorch.

Does not import torch: an ONNX export runs with onnxruntime, Pillow and numpy.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cdl.data.sources.decoding import decode, upright
from cdl.data.sources.names import check_class_name
from cdl.deployment import manifest
from cdl.deployment.manifest import CLASSES, MODEL, PREPROCESSING, PROGRAM
from cdl.runtime.errors import CdlError
from cdl.runtime.outside import json_object

Picture = str | PathLike[str] | Image.Image | np.ndarray
Pictures = Picture | Iterable[Picture]
_BATCH = 32
_REMEDY = "export it again"
_SIZE = {"type": "integer", "minimum": 1}
_MOST = {"type": "array", "items": _SIZE, "minItems": 3, "maxItems": 3}
_PREPROCESSING = {"properties": {"input": {"type": "object", "properties": {"most": _MOST}}}}
Predict = Callable[[np.ndarray], np.ndarray]  # pixels [n, H, W, 3] to logits [n, C]


class Student(ABC):
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
        pixels = [read(image) for image in several(images)]
        found = np.zeros((len(pixels), len(self.classes)), np.float32)
        for rows in batches(pixels):
            logits = self.logits(self.preprocess([pixels[row] for row in rows]))
            if not np.isfinite(logits).all():
                raise CdlError("the model's output is not finite, so no class can be predicted")
            exp = np.exp(logits - logits.max(1, keepdims=True))
            found[rows] = exp / exp.sum(1, keepdims=True)
        return found

    def best(self, image: Picture, n: int) -> list[tuple[str, float]]:
        """Return the `n` most probable classes of an image with their probabilities.

        Among equal probabilities the class learnt first comes first, as in `predict`.
        """
        (probabilities,) = self.predict_proba(image)
        order = (-probabilities).argsort(kind="stable")[:n]
        return [(self.classes[i], float(probabilities[i])) for i in order]

    def predict(self, images: Pictures) -> list[str]:
        """Return the most probable class of each image; see `predict_proba`."""
        return [self.classes[best] for best in self.predict_proba(images).argmax(1)]


class ExportedStudent(Student):
    """A student in a folder of `cdl export`; a batch has images of one size."""

    def __init__(self, folder: Path, threads: int = 1, verify: bool = True) -> None:
        """Load the model.

        Args:
            folder: folder with `model.onnx` or `model.pte`, and `classes.txt`.
            threads: number of threads; ignored by ExecuTorch.
            verify: whether to compare the files with the manifest, see `manifest.check`.

        Raises:
            CdlError: the runtime is not installed, or a file is missing or damaged.
        """
        if verify:
            manifest.check(folder)
        self.classes = _read_classes(folder / CLASSES)
        self._limits = _read_limits(folder / PREPROCESSING)
        open_graph = _open_executorch if (folder / PROGRAM).exists() else _open_onnx
        self._predict, n_classes = open_graph(folder, threads)
        if n_classes not in (None, len(self.classes)):
            raise CdlError(
                f"{folder / CLASSES}: contains {len(self.classes)} classes, {MODEL} has "
                f"{n_classes}; {_REMEDY}"
            )
        self._folder = folder

    def preprocess(self, images: Pictures) -> np.ndarray:
        """Return pixels `[n, H, W, 3]` uint8 of images of one size; resizing is in the graph.

        Raises:
            CdlError: an image cannot be read, images differ in size, or there are too many or too
                large ones for ExecuTorch.
        """
        pixels = [read(image) for image in several(images)]
        sizes = {image.shape[:2] for image in pixels}
        if not pixels:
            raise CdlError("images: there is none; expected at least one")
        if len(sizes) > 1:
            raise CdlError(f"images: have {len(sizes)} sizes; expected one size per batch")
        shape, limits = (len(pixels), *max(sizes)), self._limits
        if limits and any(n > limit for n, limit in zip(shape, limits, strict=True)):
            raise CdlError(
                f"images: number, height, width are {shape}; {PROGRAM} takes up to {limits}"
            )
        return np.stack(pixels)

    def logits(self, batch: np.ndarray) -> np.ndarray:
        """Return logits `[n, C]` of pixels.

        Raises:
            CdlError: the model cannot be run, or its output is not one number per class.
        """
        try:
            logits = self._predict(batch)
        except Exception as error:  # runtimes raise errors of various types
            raise CdlError(
                f"{self._folder}: the model cannot be run ({_first_line(error)}); {_REMEDY}"
            ) from error
        if logits.shape != (expected := (len(batch), len(self.classes))):
            raise CdlError(
                f"{self._folder}: the model's output has shape {logits.shape}, expected "
                f"{expected}; {_REMEDY}"
            )
        return logits


def _read_classes(file: Path) -> tuple[str, ...]:
    """Return the class names of an exported folder, one per line."""
    try:
        names = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise CdlError(f"{file.parent}: is not an exported student ({error}); {_REMEDY}") from error
    for name in names:
        check_class_name(name, file)
    if len(set(names)) < len(names):
        raise CdlError(f"{file}: contains a class twice; {_REMEDY}")
    return tuple(names)


def _read_limits(file: Path) -> tuple[int, ...]:
    """Return the largest number, height and width of images; empty if there are no limits."""
    about = json_object(file, schema=_PREPROCESSING, remedy=_REMEDY)
    return tuple(about.get("input", {}).get("most", ()))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _open_onnx(folder: Path, threads: int) -> tuple[Predict, int | None]:
    """Load an ONNX graph; return its function and its number of classes."""
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise CdlError(
            "exported students need the package onnxruntime, which is not installed: "
            "pip install 'cdl-workbench[predict]'"
        ) from error
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(folder / MODEL, options, providers=["CPUExecutionProvider"])
        inputs, outputs = session.get_inputs(), session.get_outputs()
        (images,), (logits,) = inputs, outputs
        _, n_classes = logits.shape
    except Exception as error:  # onnxruntime raises various types for damaged files
        raise CdlError(
            f"{folder / MODEL}: cannot be read ({_first_line(error)}); {_REMEDY}"
        ) from error

    def predict(batch: np.ndarray) -> np.ndarray:
        return np.asarray(session.run([logits.name], {images.name: batch})[0])

    return predict, n_classes if isinstance(n_classes, int) else None


def _open_executorch(folder: Path, threads: int) -> tuple[Predict, int | None]:
    """Load an ExecuTorch program; return its function and None: its output size is unknown."""
    try:
        import torch
        from executorch.runtime import Runtime
    except ImportError as error:
        raise CdlError(
            f"{PROGRAM} needs the package executorch, which is not installed: "
            "pip install 'cdl-workbench[executorch]'"
        ) from error
    try:
        program = Runtime.get().load_program(folder / PROGRAM)
        method = program.load_method("forward")
    except Exception as error:  # executorch raises various types for damaged files
        raise CdlError(
            f"{folder / PROGRAM}: cannot be read ({_first_line(error)}); {_REMEDY}"
        ) from error

    def predict(batch: np.ndarray) -> np.ndarray:
        assert program, "keeps the program alive, whose memory the method uses"
        (logits,) = method.execute([torch.from_numpy(batch)])
        return np.array(logits.numpy())

    return predict, None


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


def batches(pixels: Sequence[np.ndarray]) -> list[list[int]]:
    """Return batches of positions; the images of a batch have the same size."""
    sizes: dict[tuple[int, ...], list[int]] = {}
    for position, image in enumerate(pixels):
        sizes.setdefault(image.shape, []).append(position)
    return [rows[i : i + _BATCH] for rows in sizes.values() for i in range(0, len(rows), _BATCH)]
