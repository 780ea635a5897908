"""Small ONNX files from images to one feature vector, with random weights."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SHAPE = ("n", 3, 8, 8)
NORMALIZED = {"mean": [0.4, 0.5, 0.6], "std": [0.5, 0.25, 0.5]}


def model_of(
    shape=SHAPE, outputs=1, before=(), more=(), opset=17, kind=TensorProto.FLOAT, licence=None
):
    """A convolution and a product, 8 x 8 pixels to 16 features.

    `before` are nodes from `images` to `real`, `more` are nodes from `first` to `features`.
    """
    rng = np.random.default_rng(0)
    tensors = {
        "kernel": rng.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "weights": rng.normal(size=(64, 16)).astype(np.float32),
        "zero": np.zeros(16, np.float32),
        "layout": np.array([-1, 3, 8, 8]),
        "map": np.array([-1, 16, 1, 1]),
        "start": np.array([0]),
        "axis": np.array([1]),
    }
    conv = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}
    nodes = [
        *before,
        helper.make_node("Conv", ["real" if before else "images", "kernel"], ["a"], **conv),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Flatten", ["b"], ["c"]),
        helper.make_node("Gemm", ["c", "weights", "zero"], ["first" if more else "features"]),
        *more,
    ]
    given = helper.make_tensor_value_info("images", kind, shape)
    made = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in ("features", "c")[:outputs]
    ]
    initial = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    graph = helper.make_graph(nodes, "toy", [given], made, initial)
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    if licence:
        helper.set_model_props(model, {"model_license": licence})
    return model


def write(file, **changes):
    """Write the file; return its block in a configuration."""
    file.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model_of(**changes), file)
    return {"onnx": str(file), **NORMALIZED}


def features(images):
    """The features of images `[n, 3, 8, 8]` in 0..1, computed by the reference of ONNX."""
    from onnx.reference import ReferenceEvaluator

    mean, std = (np.reshape(NORMALIZED[k], (3, 1, 1)).astype(np.float32) for k in NORMALIZED)
    return ReferenceEvaluator(model_of()).run(None, {"images": (images - mean) / std})[0]
