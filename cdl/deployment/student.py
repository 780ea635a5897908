"""Students exported to ONNX or ExecuTorch, and the interface that they share with trained ones.

Does not import torch: an ONNX export runs with onnxruntime, Pillow and numpy.
"""

from pathlib import Path

import numpy as np

from cdl.deployment import manifest
from cdl.deployment.device.classifier import Classifier as Student
from cdl.deployment.device.classifier import Picture, Pictures, batches, read, several
from cdl.deployment.device.graph import REMEDY, Graph, first_line
from cdl.deployment.device.main import learn_folder
from cdl.deployment.device.student import Student as DeviceStudent
from cdl.deployment.device.update import Update
from cdl.deployment.manifest import CLASSES, MODEL, PREPROCESSING, PROGRAM
from cdl.runtime.errors import CdlError
from cdl.runtime.outside import json_object

__all__ = [
    "CLASSES",
    "MODEL",
    "PREPROCESSING",
    "PROGRAM",
    "ExportedStudent",
    "Picture",
    "Pictures",
    "Student",
    "batches",
    "read",
    "several",
    "teach",
]
_SIZE = {"type": "integer", "minimum": 1}
_MOST = {"type": "array", "items": _SIZE, "minItems": 3, "maxItems": 3}
_PREPROCESSING = {"properties": {"input": {"type": "object", "properties": {"most": _MOST}}}}


class ExportedStudent(DeviceStudent):
    """A student in a folder of `cdl export`; a batch has images of one size.

    It is the student of the program in the folder, and also reads ExecuTorch.
    """

    def _verify(self) -> None:
        manifest.check(self.folder)

    def _open(self, threads: int) -> Graph:
        self._limits = _read_limits(self.folder / PREPROCESSING)
        if (self.folder / PROGRAM).exists():
            return _open_executorch(self.folder)
        return super()._open(threads)

    def preprocess(self, images: Pictures) -> np.ndarray:
        """Return pixels as the base class; raise `CdlError` for more than ExecuTorch takes."""
        pixels = super().preprocess(images)
        shape, limits = pixels.shape[:3], self._limits
        if limits and any(n > limit for n, limit in zip(shape, limits, strict=True)):
            raise CdlError(
                f"images: number, height, width are {shape}; {PROGRAM} takes up to {limits}"
            )
        return pixels


def teach(
    folder: Path,
    images: Path,
    test: Path | None = None,
    unlabelled: Path | None = None,
    **of_runs: object,
) -> Update:
    """Teach an exported student from a folder of images for each class; see `Student.learn`.

    Args:
        folder: folder of the student, which gets a new version.
        images: training images, CLASS/IMAGE.
        test: test images of any classes, CLASS/IMAGE.
        unlabelled: folder of unlabelled images.
        of_runs: options that only runs have, which must be None.

    Raises:
        CdlError: an argument is invalid, or the student cannot learn.
    """
    for name, value in of_runs.items():
        if value is not None:
            raise CdlError(f"--{name}: {value} is only used for runs; omit it")
    return learn_folder(ExportedStudent(folder), images, test=test, unlabelled=unlabelled)


def _read_limits(file: Path) -> tuple[int, ...]:
    """Return the largest number, height and width of images; empty if there are no limits."""
    about = json_object(file, schema=_PREPROCESSING, remedy=REMEDY)
    return tuple(about.get("input", {}).get("most", ()))


def _open_executorch(folder: Path) -> Graph:
    """Load an ExecuTorch program, which returns logits only, of an unknown number of classes."""
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
            f"{folder / PROGRAM}: cannot be read ({first_line(error)}); {REMEDY}"
        ) from error

    def run(batch: np.ndarray, output: str) -> np.ndarray:
        assert program, "keeps the program alive, whose memory the method uses"
        (logits,) = method.execute([torch.from_numpy(batch)])
        return np.array(logits.numpy())

    return Graph(run, None)
