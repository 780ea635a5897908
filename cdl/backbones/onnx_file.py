"""ONNX files of images: read with bounds, run by onnxruntime, and put into exported graphs.

A file has one input, normalised images `[n, 3, side, side]`, and one output. All tensors are inside
it, so that its sha256 determines its values. Imports no torch.
"""

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cdl.backbones.architectures import unprompted
from cdl.backbones.classifiers import plain_file
from cdl.backbones.shape import BackboneShape, features_shape
from cdl.runtime.errors import CdlError
from cdl.runtime.outside import imported, json_object, one_sentence

SUFFIX = ".onnx"
DOMAIN, OPERATOR = "cdl", "Backbone"  # of the node in whose place `inline` puts a network
_LOOP = b'"\x04Loop'  # the operator's field of a node; such a graph may never end
_DIFFERENT = 1e-3  # difference of an image alone and in a batch from which a file is refused
_INSTALL = "pip install 'cdl-workbench[export]'"


@dataclass(frozen=True, eq=False)
class Network:
    """An open file.

    what: its name in messages.
    content: its bytes.
    session: of onnxruntime.
    side: of its images in pixels; None: any.
    single: whether it reads one image at a time.
    """

    what: str
    content: bytes
    session: Any
    side: int | None
    single: bool

    def run(self, images: np.ndarray) -> np.ndarray:
        """Return the output for normalised images `[n, 3, side, side]`, float32.

        Raises:
            CdlError: it cannot read images of this size.
        """
        name = self.session.get_inputs()[0].name
        parts = np.split(images, len(images)) if self.single else [images]
        with one_sentence(self.what, "onnxruntime", "run"):
            return np.concatenate([self.session.run(None, {name: part})[0] for part in parts])


def open_network(content: bytes, what: str, threads: int) -> Network:
    """Open the content of a file.

    Raises:
        CdlError: onnxruntime is not installed, or the content is no such graph; `what` names it.
    """
    if _LOOP in content:
        raise CdlError(f"{what}: contains the operator Loop; expected a graph without loops")
    with one_sentence(what, "onnxruntime"):
        session = _session(content, threads)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise CdlError(
            f"{what}: has {len(inputs)} inputs and {len(outputs)} outputs; expected one of each"
        )
    kind, shape = inputs[0].type, inputs[0].shape
    sizes = [size if isinstance(size, int) else None for size in shape or [None] * 4]
    sides = {*sizes[2:]} - {None}  # an unknown one equals a known one
    images = len(sizes) == 4 and sizes[1] in (None, 3) and len(sides) < 2
    if not images or kind != "tensor(float)" or sizes[0] not in (None, 1):
        raise CdlError(
            f"{what}: its input is {kind} {shape}; expected tensor(float) [n, 3, side, side] with "
            "any n or 1"
        )
    return Network(what, content, session, next(iter(sides), None), sizes[0] == 1)


def _session(content: bytes, threads: int, profile: str = "") -> Any:
    """Open a file without any other file; with the path of a profile, unchanged and timed."""
    ort = imported("onnxruntime", "ONNX files", "pip install onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    if profile:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.enable_profiling, options.profile_file_prefix = True, profile
    # tensors in other files would not be in the sha256: none are found in an empty folder
    with tempfile.TemporaryDirectory() as folder:
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", folder
        )
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def read_features(
    path: Path, size: int | None, usual: int | None = None
) -> tuple[Network, BackboneShape, float]:
    """Open a file of which features are read, and try it with two random images.

    Args:
        path: the file.
        size: side of its images in pixels; None: as the file says.
        usual: the side if the file reads images of any; None: it must be given.

    Returns:
        The file, its shape, and the largest difference of a feature of an image alone and in a
        batch, relative to the largest value.

    Raises:
        CdlError: a package is missing, the file cannot be read, its images have another or no fixed
            size, or its output is not one finite feature vector of each image.
    """
    imported("onnx", "backbones of ONNX files", _INSTALL)
    network = open_network(plain_file(path, SUFFIX).read_bytes(), str(path), 1)
    side = size or network.side or usual
    if side is None or network.side not in (None, side):
        raise CdlError(
            f"{path}: invalid size {size}; expected {network.side or 'the side of its images'}, "
            f"since it reads images of {network.side or 'any'} pixels"
        )
    if network.single:
        raise CdlError(f"{path}: reads one image at a time; export it with a free batch size")
    given = np.random.default_rng(0).standard_normal((2, 3, side, side), np.float32)
    both, alone = network.run(given), network.run(given[:1])
    vectors = both.ndim == 2 and len(both) == 2 and both.size and alone.shape == both[:1].shape
    if not vectors or both.dtype != np.float32:
        raise CdlError(
            f"{path}: its output is {both.dtype} {both.shape} for two images; expected one feature "
            "vector of each, float32 (2, D)"
        )
    if not (np.isfinite(both).all() and np.isfinite(alone).all()):
        raise CdlError(f"{path}: its features of random images are not finite")
    difference = float(np.abs(both[:1] - alone).max() / max(np.abs(both).max(), 1e-30))
    if difference > _DIFFERENT:
        raise CdlError(
            f"{path}: the feature of an image depends on the others of its batch (difference "
            f"{difference:.1e}); export it in eval mode and without dynamic int8"
        )
    why = unprompted(path.name, "an ONNX file gives its output only")
    step = None if network.side else 1
    return network, features_shape(both.shape[1], step, side, why), difference


def facts(network: Network) -> dict[str, Any]:
    """Return `parameters` of a file, `licence` that it names or None, version of `onnxruntime`."""
    import onnx
    import onnxruntime

    floats = ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE", "INT8", "UINT8")  # others are shapes
    kinds = {onnx.TensorProto.DataType.Value(name) for name in floats}
    with one_sentence(network.what, "onnx"):
        model = onnx.load_model_from_string(network.content)
    constants = [a.t for n in model.graph.node if n.op_type == "Constant" for a in n.attribute]
    tensors = [t for t in [*model.graph.initializer, *constants] if t.data_type in kinds]
    licence = {entry.key: entry.value for entry in model.metadata_props}.get("model_license")
    return {
        "parameters": sum(math.prod(t.dims) for t in tensors),
        "licence": licence or None,
        "onnxruntime": onnxruntime.__version__,
    }


def operations(network: Network, side: int) -> int:
    """Return the operations for one image, counted in a run: convolutions and matrix products."""
    with one_sentence(network.what, "onnxruntime", "run"), tempfile.TemporaryDirectory() as folder:
        session = _session(network.content, 1, f"{folder}/run")
        session.run(None, {session.get_inputs()[0].name: np.zeros((1, 3, side, side), np.float32)})
        events = Path(session.end_profiling()).read_text()
        done = json_object(f'{{"events": {events}}}', f"{network.what}: its profile")["events"]
        return sum(_products(e["args"]) for e in done if e["name"].endswith("_kernel_time"))


def _products(node: Mapping[str, Any]) -> int:
    """Return the operations of a node of a profile, a multiply-add counted as two."""
    kind: str = node["op_name"]
    given: list[list[int]]
    made: list[list[int]]
    given, made = (
        [shape for one in node[f"{way}_type_shape"] for shape in one.values()]
        for way in ("input", "output")
    )
    if "Conv" in kind:
        pixels = given[0] if "Transpose" in kind else made[0]
        kernel = next(shape for shape in given[1:] if len(shape) > 1)  # others are scales
        return 2 * math.prod(pixels) * math.prod(kernel[1:])
    if "MatMul" in kind or "Gemm" in kind:
        summed = math.prod(given[0]) // made[0][0] if "Gemm" in kind else given[0][-1]
        return 2 * math.prod(made[0]) * summed
    return 0


def inline(file: Path, network: Network) -> None:
    """Put a network in the place of the node `OPERATOR` of an exported graph.

    Args:
        file: the ONNX graph; it is changed in place.
        network: the network.

    Raises:
        CdlError: the operators of the two cannot be converted to one version.
    """
    import onnx
    from onnx import helper, inliner, version_converter

    def version(model: Any) -> int:
        return int(next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx")))

    with one_sentence(network.what, "onnx", "converted"):
        inner = inliner.inline_local_functions(onnx.load_model_from_string(network.content))
        models = [inner, onnx.load(file)]
        newest = max(map(version, models))
        inner, whole = (
            model if version(model) == newest else version_converter.convert_version(model, newest)
            for model in models
        )
        graph, known = inner.graph, {tensor.name for tensor in inner.graph.initializer}
        weights = [helper.make_node("Constant", [], [t.name], value=t) for t in graph.initializer]
        inputs = [given.name for given in graph.input if given.name not in known]
        parts = inputs, [graph.output[0].name], [*weights, *graph.node], inner.opset_import
        whole.functions.append(helper.make_function(DOMAIN, OPERATOR, *parts))
        whole.opset_import.extend(opset for opset in inner.opset_import if opset.domain)
        onnx.save(inliner.inline_local_functions(whole), file)
