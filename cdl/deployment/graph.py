"""Write a student as one graph from pixels or ids to logits: ONNX, ExecuTorch, int8."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from cdl.backbones.extractor import OnnxModel
from cdl.backbones.onnx_file import inline
from cdl.data.views import Views
from cdl.deployment.model import Model
from cdl.device.graph import FEATURES, LOGITS
from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError

OUTPUT = {"name": LOGITS, "type": "float32", "axes": ["batch", "class"]}  # as it is described
MOST = 32, 512, 512  # batch, height, width: ExecuTorch plans memory at export
PRODUCTS = ("MatMul", "Gemm")  # operators whose weights are quantised


class Graph(nn.Module):
    """From the input of an exported student to logits `[B, C]`.

    Attributes:
        name: name of the input.
        free: names of the axes of the input, the first ones, whose sizes are not fixed.
        most: largest size of each of these axes for ExecuTorch; empty if it is not offered.
        quantised: operators of ONNX whose weights int8 rounds.
    """

    name: ClassVar[str]
    free: ClassVar[tuple[str, ...]]
    most: ClassVar[tuple[int, ...]] = ()
    quantised: ClassVar[tuple[str, ...]] = PRODUCTS

    def __init__(self, model: Model) -> None:
        """Set to eval mode."""
        super().__init__()
        self.model = model
        self.eval()

    def example(self) -> Tensor:
        """Return an input with distinct sizes above 1, since torch would treat 1 as fixed."""
        raise NotImplementedError

    def prepared(self, given: Tensor) -> Tensor:
        """Return the input of the model."""
        return given

    def forward(self, given: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.model(self.prepared(given))
        return logits


class ImageGraph(Graph):
    """Images `[B, H, W, 3]` uint8 of one size to logits `[B, C]`.

    The test view is two matrix products whose matrices are computed from height and width, so that
    both stay dynamic in the graph.
    """

    name, free, most = "images", ("batch", "height", "width"), MOST

    def __init__(self, model: Model, views: Views) -> None:
        """Combine the test view and a model."""
        super().__init__(model)
        self.views = views

    def example(self) -> Tensor:
        """Return images of zeros."""
        return torch.zeros((2, 37, 41, 3), dtype=torch.uint8)

    def prepared(self, given: Tensor) -> Tensor:
        """Return test views."""
        return self.views.test_of_one_size(given.permute(0, 3, 1, 2))


class _WithFeatures(nn.Module):
    """A graph with a second output: the tokens `[B, T, D]` that the heads read."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.inner = graph  # an attribute `graph` is torch.fx's
        self.eval()

    def forward(self, given: Tensor) -> tuple[Tensor, Tensor]:
        logits, tokens = self.inner.model.outputs(self.inner.prepared(given))
        return logits, tokens


def write_onnx(graph: Graph, path: Path) -> None:
    """Write an ONNX graph with dynamic sizes: the input to logits and features.

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
    example = graph.example()
    with torch.no_grad():
        graph(example)  # installs the blocks' injectors, which torch.export cannot do
    free = {axis: torch.export.Dim(name) for axis, name in enumerate(graph.free)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("onnxscript").setLevel(logging.ERROR)
        program = torch.onnx.export(
            _WithFeatures(graph),
            (example,),
            dynamo=True,
            dynamic_shapes={"given": free},
            input_names=[graph.name],
            output_names=[LOGITS, FEATURES],
            verbose=False,
        )
    assert program is not None, "dynamo=True returns a program"
    with artifacts.replacing(path) as temporary:
        program.save(temporary, external_data=False)
        for part in graph.modules():
            if isinstance(part, OnnxModel):
                inline(temporary, part.network)


def write_executorch(graph: Graph, path: Path) -> None:
    """Write an ExecuTorch program for XNNPACK with dynamic sizes up to `graph.most`.

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
    example, sizes = graph.example(), zip(graph.free, graph.most, strict=True)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph(example)
        free = {
            axis: torch.export.Dim(name, min=1, max=most) for axis, (name, most) in enumerate(sizes)
        }
        program = torch.export.export(graph, (example,), dynamic_shapes={"given": free})
        lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        made = lowered.to_executorch()
    with artifacts.replacing(path) as temporary:
        temporary.write_bytes(made.buffer)


def to_int8(
    model: Path,
    images: Iterable[np.ndarray] | None = None,
    quantised: Sequence[str] = PRODUCTS,
) -> None:
    """Quantise weights of an ONNX graph to int8, in place.

    All operators but `quantised` stay in fp32: the test view, attention and norms; and products
    with a stack of matrices.

    Args:
        model: ONNX file to replace.
        images: batches `[B, H, W, 3]` of training images that calibrate the ranges of the
            activations (static); None: ranges are computed for each input (dynamic).
        quantised: see `Graph.quantised`.
    """
    import onnx
    from onnxruntime import quantization as q

    with (
        _quiet(),
        artifacts.replacing(model) as rounded,
        artifacts.replacing(model.with_suffix(".folded")) as folded,
    ):
        # only folds constants: shapes cannot be inferred with dynamic sizes
        q.quant_pre_process(model, folded, skip_symbolic_shape=True)
        graph, operators = onnx.load(folded).graph, list(quantised)
        rank = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
        found = [node for node in graph.node if node.op_type in operators]
        # one range for a stack of matrices would be too coarse
        stacks = [node.name for node in found if rank.get(node.input[1]) == 3]
        if images is None:
            q.quantize_dynamic(
                folded,
                rounded,
                op_types_to_quantize=operators,
                nodes_to_exclude=stacks,
                weight_type=q.QuantType.QInt8,
            )
        else:
            free = [node.name for node in found if node.input[1] not in rank]
            q.quantize_static(
                folded,
                rounded,
                _calibration(images, graph.input[0].name),
                op_types_to_quantize=operators,
                nodes_to_exclude=free + stacks,
                weight_type=q.QuantType.QInt8,
            )
    model.with_suffix(".folded").unlink(missing_ok=True)


def _calibration(images: Iterable[np.ndarray], name: str) -> Any:
    """Return a reader of calibration batches for onnxruntime."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self._batches, None)
            return None if batch is None else {name: batch}

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
