"""Write a student as one graph from pixels to logits: ONNX, ExecuTorch, int8."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cdl.data.views import Views
from cdl.deployment.device.graph import FEATURES, LOGITS
from cdl.deployment.trained import Model
from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError

INPUT, OUTPUT = "images", LOGITS
MOST = {"batch": 32, "height": 512, "width": 512}  # ExecuTorch plans memory at export
_EXAMPLE = (2, 37, 41, 3)  # distinct sizes above 1, since torch would treat 1 as fixed


class Graph(nn.Module):
    """Images `[B, H, W, 3]` uint8 of one size to logits `[B, C]`.

    The test view is two matrix products whose matrices are computed from height and width, so that
    both stay dynamic in the graph.
    """

    def __init__(self, model: Model, views: Views) -> None:
        """Combine the test view and a model."""
        super().__init__()
        self.model, self.views = model, views
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.model(self.views.test_of_one_size(images.permute(0, 3, 1, 2)))
        return logits


class _WithFeatures(nn.Module):
    """A graph with a second output: the tokens `[B, T, D]` that the heads read."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.model, self.views = graph.model, graph.views  # an attribute `graph` is torch.fx's
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits, tokens = self.model.outputs(self.views.test_of_one_size(images.permute(0, 3, 1, 2)))
        return logits, tokens


def write_onnx(graph: Graph, path: Path) -> None:
    """Write an ONNX graph with dynamic batch, height and width: images to logits and features.

    Raises:
        CdlError: onnx or onnxscript is not installed.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise CdlError(
            "export to ONNX needs the packages onnx and onnxscript, which are not installed: "
            "pip install 'cdl-workbench[export]'"
        ) from error
    images = torch.zeros(_EXAMPLE, dtype=torch.uint8)
    with torch.no_grad():
        graph(images)  # installs the blocks' injectors, which torch.export cannot do
    free = {axis: torch.export.Dim(name) for axis, name in enumerate(("batch", "height", "width"))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("onnxscript").setLevel(logging.ERROR)
        program = torch.onnx.export(
            _WithFeatures(graph),
            (images,),
            dynamo=True,
            dynamic_shapes={INPUT: free},
            input_names=[INPUT],
            output_names=[LOGITS, FEATURES],
            verbose=False,
        )
    assert program is not None, "dynamo=True returns a program"
    with artifacts.replacing(path) as temporary:
        program.save(temporary, external_data=False)


def write_executorch(graph: Graph, path: Path) -> None:
    """Write an ExecuTorch program for XNNPACK with dynamic sizes up to `MOST`.

    Raises:
        CdlError: executorch is not installed.
    """
    try:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower
    except ImportError as error:
        raise CdlError(
            "export to ExecuTorch needs the package executorch, which is not installed: "
            "pip install 'cdl-workbench[executorch]'"
        ) from error
    images = torch.zeros(_EXAMPLE, dtype=torch.uint8)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph(images)
        free = {
            axis: torch.export.Dim(name, min=1, max=most)
            for axis, (name, most) in enumerate(MOST.items())
        }
        program = torch.export.export(graph, (images,), dynamic_shapes={INPUT: free})
        lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        made = lowered.to_executorch()
    with artifacts.replacing(path) as temporary:
        temporary.write_bytes(made.buffer)


def to_int8(model: Path, images: Iterable[np.ndarray] | None = None) -> None:
    """Quantise the matrix products with weights of an ONNX graph to int8, in place.

    The test view, attention and norms stay in fp32.

    Args:
        model: ONNX file to replace.
        images: batches `[B, H, W, 3]` of training images that calibrate the ranges of the
            activations (static); None: ranges are computed for each input (dynamic).
    """
    import onnx
    from onnxruntime import quantization as q

    products = ["MatMul", "Gemm"]
    with (
        _quiet(),
        artifacts.replacing(model) as rounded,
        artifacts.replacing(model.with_suffix(".folded")) as folded,
    ):
        # only folds constants: shapes cannot be inferred with dynamic sizes
        q.quant_pre_process(model, folded, skip_symbolic_shape=True)
        if images is None:
            q.quantize_dynamic(
                folded, rounded, op_types_to_quantize=products, weight_type=q.QuantType.QInt8
            )
        else:
            graph = onnx.load(folded).graph
            weights = {tensor.name for tensor in graph.initializer}
            found = [node for node in graph.node if node.op_type in products]
            free = [node.name for node in found if node.input[1] not in weights]
            q.quantize_static(
                folded,
                rounded,
                _calibration(images),
                op_types_to_quantize=products,
                nodes_to_exclude=free,
                weight_type=q.QuantType.QInt8,
            )
    model.with_suffix(".folded").unlink(missing_ok=True)


def _calibration(images: Iterable[np.ndarray]) -> Any:
    """Return a reader of calibration batches for onnxruntime."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self._batches, None)
            return None if batch is None else {INPUT: batch}

    return Reader()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress onnxruntime's messages on stdout and the root logger."""
    before = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.getLogger().setLevel(before)
