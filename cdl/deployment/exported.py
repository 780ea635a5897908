"""An exported student, asked with onnxruntime, Pillow and numpy alone."""

import json
from pathlib import Path

import numpy as np

from cdl.deployment.student import CLASSES, MODEL, PREPROCESSING, Pictures, Student, read, several
from cdl.runtime.errors import CdlError


class ExportedStudent(Student):
    """What `cdl export` wrote; the view is made in the graph, of images of one size at a time."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        """Open the graph.

        Args:
            folder: it holds `model.onnx` and `classes.txt`.
            threads: that compute.

        Raises:
            CdlError: onnxruntime is not installed, or a file is missing or damaged.
        """
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
        again = "export it again"
        try:
            self.classes = tuple((folder / CLASSES).read_text(encoding="utf-8").splitlines())
            self.about = json.loads((folder / PREPROCESSING).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CdlError(f"{folder} is no exported student ({error}); {again}") from error
        try:
            self._session = ort.InferenceSession(
                folder / MODEL, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # whatever onnxruntime says of damaged bytes
            raise CdlError(f"{folder / MODEL} cannot be read ({error}); {again}") from error
        (images,), (logits,) = self._session.get_inputs(), self._session.get_outputs()
        if logits.shape[-1] != len(self.classes):
            raise CdlError(
                f"{folder / CLASSES} names {len(self.classes)} classes, but {MODEL} knows "
                f"{logits.shape[-1]}; {again}"
            )
        self._input = images.name

    def preprocess(self, images: Pictures) -> np.ndarray:
        """Return pixels `[n, H, W, 3]` uint8 of images of one size; resizing is in the graph.

        Raises:
            CdlError: an image cannot be read, or they differ in size.
        """
        pixels = [read(image) for image in several(images)]
        sizes = {image.shape[:2] for image in pixels}
        if len(sizes) > 1:
            raise CdlError(f"images: those of a batch have one size, these {len(sizes)}")
        return np.stack(pixels)

    def logits(self, batch: np.ndarray) -> np.ndarray:
        """Return logits `[n, C]` of pixels."""
        return np.asarray(self._session.run(None, {self._input: batch})[0])
