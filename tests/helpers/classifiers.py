"""Small classifiers of each kind for the classes of the digits, with random weights."""

import json

import numpy as np
import onnx
import timm
import torch
from exported import MADE_FROM
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

from cdl.deployment import manifest

CLASSES = [str(i) for i in range(10)]


def of_timm(folder, classes=CLASSES, **changes):
    """A folder as timm saves it for the Hub, of a tiny convolutional network."""
    torch.manual_seed(0)
    model = timm.create_model("test_efficientnet", num_classes=len(classes))
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    config = {
        "architecture": "test_efficientnet",
        "num_classes": len(classes),
        "label_names": classes,
        "pretrained_cfg": {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3},
    }
    (folder / "config.json").write_text(json.dumps(config | changes))
    return {"timm": str(folder)}


def of_transformers(folder, classes=CLASSES, **changes):
    """A folder of a tiny vision transformer, as transformers saves it."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32, "image_size": 16, "patch_size": 8}
    labels = {
        "id2label": dict(enumerate(classes)),
        "label2id": {n: i for i, n in enumerate(classes)},
    }
    ViTForImageClassification(ViTConfig(**sizes, **labels)).save_pretrained(folder)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return {"hf": str(folder)}


def of_onnx(file, bias=0.0, shape=("n", 3, 8, 8)):
    """An ONNX file of one product of the 8 x 8 pixels, and the mapping of its classes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    _write_graph(file, [], TensorProto.FLOAT, shape, bias)
    mapping = file.with_suffix(".csv")
    mapping.write_text("model,data\n" + "".join(f"{i},{name}\n" for i, name in enumerate(CLASSES)))
    inputs = {"size": 8, "mean": [0.5] * 3, "std": [0.5] * 3}
    return {"onnx": str(file), "classes": str(mapping), **inputs}


def of_student(folder):
    """An exported student whose graph is such a product."""
    folder.mkdir(parents=True)
    cast = helper.make_node("Cast", ["images"], ["real"], to=TensorProto.FLOAT)
    _write_graph(folder / "model.onnx", [cast], TensorProto.UINT8, ["n", 8, 8, 3])
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    (folder / "preprocessing.json").write_text('{"input": {"name": "images", "type": "uint8"}}')
    manifest.write(folder, MADE_FROM)
    return {"student": str(folder)}


def _write_graph(file, before, dtype, shape, bias=0.0):
    weights = np.random.default_rng(0).normal(size=(192, 10)).astype(np.float32)
    tensors = [numpy_helper.from_array(np.array([-1, 192]), "shape")]
    tensors.append(numpy_helper.from_array(weights, "weights"))
    tensors.append(numpy_helper.from_array(np.full(10, bias, np.float32), "bias"))
    nodes = [
        *before,
        helper.make_node("Reshape", ["real" if before else "images", "shape"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights", "bias"], ["logits"]),
    ]
    given = helper.make_tensor_value_info("images", dtype, shape)
    made = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 10])
    graph = helper.make_graph(nodes, "toy", [given], [made], tensors)
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), file)


MAKERS = {"timm": of_timm, "hf": of_transformers, "onnx": of_onnx, "student": of_student}
