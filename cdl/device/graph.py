"""The frozen network of a student: an ONNX graph from pixels or ids to logits and to features."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cdl.device.errors import CdlError, first_line
from cdl.device.sealed import REMEDY

LOGITS, FEATURES = "logits", "features"
Run = Callable[[np.ndarray, Sequence[str]], list[np.ndarray]]  # a batch and names of outputs


@dataclass(frozen=True)
class Graph:
    """The frozen network.

    run: function from a batch, pixels `[n, H, W, 3]` or ids of tokens `[n, N]`, and the names of
        outputs to their values.
    classes: number of its classes; None if the runtime does not say.
    tokens: shape `[T, D]` of its features; None if it has no such output.
    """

    run: Run
    classes: int | None
    tokens: tuple[int, int] | None = None


def open_onnx(file: Path, threads: int) -> Graph:
    """Load an ONNX graph; raise `CdlError` if it is damaged or onnxruntime is not installed."""
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise CdlError(
            "exported students need the package onnxruntime, which is not installed: "
            "pip install onnxruntime"
        ) from error
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        (batch,), (logits, *others) = session.get_inputs(), session.get_outputs()
        _, n_classes = logits.shape
        tokens = [out.shape[1:] for out in others if out.name == FEATURES and len(out.shape) == 3]
    except Exception as error:  # onnxruntime raises various types for damaged files
        raise CdlError(f"{file}: cannot be read ({first_line(error)}); {REMEDY}") from error

    def run(values: np.ndarray, outputs: Sequence[str]) -> list[np.ndarray]:
        names = [logits.name if output == LOGITS else output for output in outputs]
        return [np.asarray(found) for found in session.run(names, {batch.name: values})]

    shape = (int(tokens[0][0]), int(tokens[0][1])) if tokens else None
    return Graph(run, n_classes if isinstance(n_classes, int) else None, shape)
