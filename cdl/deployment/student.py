"""Students exported to ONNX or ExecuTorch, and the interface that they share with trained ones.

Does not import torch: an ONNX export runs with onnxruntime, numpy, and Pillow or tokenizers.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cdl.data.modalities import DEFAULT, ModalityFacts, modality
from cdl.deployment import manifest
from cdl.deployment.manifest import CLASSES, MODEL, PREPROCESSING, PROGRAM
from cdl.device.graph import Graph
from cdl.device.items import Items
from cdl.device.sealed import REMEDY
from cdl.device.student import DeviceStudent
from cdl.runtime.errors import CdlError, first_line
from cdl.runtime.outside import json_object
from cdl.runtime.registry import load

__all__ = ["CLASSES", "MODEL", "PREPROCESSING", "PROGRAM", "ExportedStudent"]
_SIZE = {"type": "integer", "minimum": 1}
_MOST = {"type": "array", "items": _SIZE, "minItems": 3, "maxItems": 3}
_INPUT = {"type": "object", "properties": {"most": _MOST}}
_PREPROCESSING = {"properties": {"input": _INPUT, "modality": {"type": "string"}}}


class ExportedStudent(DeviceStudent):
    """A student in a folder of `cdl export`.

    It is the student of the program in the folder, and also reads ExecuTorch.
    """

    def _verify(self) -> None:
        manifest.check(self.folder)

    def _open_items(self) -> Items:
        # the largest number, height and width of images; empty if there are no limits
        self._limits = tuple(_preprocessing(self.folder).get("input", {}).get("most", ()))
        found: Items = load(facts_of(self.folder).device).takes.open(self.folder)
        return found

    def _open(self, threads: int) -> Graph:
        if (self.folder / PROGRAM).exists():
            return _open_executorch(self.folder)
        return super()._open(threads)

    def preprocess(self, given: Any) -> np.ndarray:
        """Return what the base class does; raise `CdlError` for more than ExecuTorch takes."""
        found = super().preprocess(given)
        shape, limits = found.shape[:3], self._limits
        if limits and any(n > limit for n, limit in zip(shape, limits, strict=True)):
            raise CdlError(
                f"images: number, height, width are {shape}; {PROGRAM} takes up to {limits}"
            )
        return found


def facts_of(folder: Path) -> ModalityFacts:
    """Return facts of the modality of an exported student; raise `CdlError` if it is unknown."""
    found = _preprocessing(folder).get("modality", DEFAULT)
    return modality(found, f"{folder / PREPROCESSING}: modality")


def _preprocessing(folder: Path) -> dict[str, Any]:
    return json_object(folder / PREPROCESSING, schema=_PREPROCESSING, remedy=REMEDY)


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

    def run(batch: np.ndarray, outputs: Sequence[str]) -> list[np.ndarray]:
        assert program, "keeps the program alive, whose memory the method uses"
        (logits,) = method.execute([torch.from_numpy(batch)])
        return [np.array(logits.numpy())]

    return Graph(run, None)
