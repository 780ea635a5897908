"""A minimal exported student, written in milliseconds."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cdl.deployment import manifest

NAMES = ("red", "green", "blue")
MADE_FROM = {"run": "tiny/digits/l2p/student/seed0", "results": "0" * 64}


def write_student(folder, names=NAMES, scale=1.0, outputs=("batch", 3), external=False, channels=3):
    """Write a student whose logits are the mean of each channel times `scale`.

    Args:
        folder: folder to make.
        names: class names.
        scale: a weight of the graph.
        outputs: shape of the logits as the graph declares it.
        external: whether the weight is in a file of its own.
        channels: channels of images as the graph declares them.
    """
    folder.mkdir(parents=True)
    nodes = [
        helper.make_node("Cast", ["images"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["real", "axes"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "scale"], ["logits"]),
    ]
    pixels, logits = ["batch", "height", "width", channels], list(outputs)
    graph = helper.make_graph(
        nodes,
        "student",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, pixels)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, logits)],
        [
            helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
            numpy_helper.from_array(np.float32([scale] * 3), "scale"),
        ],
    )
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(
        helper.make_model(graph, opset_imports=opsets, ir_version=9),
        folder / "model.onnx",
        save_as_external_data=external,
        location="model.onnx.data",
        size_threshold=0,
    )
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in names))
    (folder / "preprocessing.json").write_text('{"input": {"name": "images", "type": "uint8"}}')
    (folder / "card.md").write_text("# A student\n")
    manifest.write(folder, MADE_FROM)
    return folder
