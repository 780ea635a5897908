"""Exported students of colours that can learn on, written in milliseconds."""

import numpy as np
import onnx
from exported import MADE_FROM, NAMES
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from cdl.data.modalities import MODALITIES
from cdl.deployment import manifest
from cdl.deployment.bundle import program
from cdl.device.closed import Statistics, pack, unpack
from cdl.device.memory import How
from cdl.device.stored import MEMORY, make_memory, write_memory

COLOURS = {
    **{"red": (220, 30, 30), "green": (30, 200, 30), "blue": (40, 40, 220)},
    **{"yellow": (220, 210, 30), "white": (235, 235, 235), "black": (20, 20, 20)},
}
NEW = ("black", "white", "yellow")
SLCA = {
    **{"statistic": "variance", "samples": 64, "steps": "seen", "mean_shrink": 0.1},
    **{"logit_norm": 0.1, "optimizer": "sgd", "lr": 0.01, "momentum": 0.9},
    **{"weight_decay": 0.0005, "epochs": 5, "schedule": "cosine", "next_task": "trained"},
}
TOKEN, WIDTH = 24, 64  # of the feature and of a ridge's projection
_rng = np.random.default_rng(0)
WAVES = np.float32(2 * _rng.standard_normal((3, TOKEN)))
PHASES = np.float32(_rng.uniform(0, 6, TOKEN))


def draw_images(name, n, seed=0, side=4):
    """Return images `[n, side, side, 3]` of a class: its colour with noise."""
    rng = np.random.default_rng([seed, len(name)])
    centre = np.float32(COLOURS[name]) + 15 * rng.standard_normal((n, 1, 1, 3))
    noisy = centre + 10 * rng.standard_normal((n, side, side, 3))
    return noisy.clip(0, 255).astype(np.uint8)


def tokens_of(images):
    """Return what the graph returns as features, `[n, 1, TOKEN]`: waves over the mean colour."""
    mean = images.mean((1, 2), dtype=np.float32) / np.float32(255)
    return np.sin(mean @ WAVES + PHASES)[:, None]


FECAM = {"tukey": None, "alpha1": 1.0, "alpha2": 1.0}


def first_memory(kind, statistic="variance", options=FECAM):
    """Return the memory after the three classes of the export."""
    tokens = np.concatenate([tokens_of(draw_images(name, 20, 1)) for name in NAMES])
    labels = np.arange(len(NAMES)).repeat(20)
    if kind == "class_means":
        empty = {"sums": np.zeros((2 * TOKEN, 0)), "counts": np.zeros(0), "images": np.zeros(0)}
        about = {"kind": "mean", "updates": 0, "parts": [[0, 12.0], [-1, 8.0]]}
        return make_memory(about, empty).learn(tokens, labels, len(NAMES), How(balance=False))
    if kind == "fecam":
        empty = {"sums": np.zeros((TOKEN, 0)), "counts": np.zeros(0), "images": np.zeros(0)}
        empty |= {"weight": np.zeros((0, TOKEN)), "deviations": np.zeros((0, TOKEN))}
        empty |= {"precision": np.zeros((0, TOKEN * (TOKEN + 1) // 2))}
        memory = make_memory({"kind": kind, "updates": 0, **options}, empty)
        return memory.learn(tokens, labels, len(NAMES), How(balance=False))
    if kind != "aligned":
        projection = np.random.default_rng(0).standard_normal((TOKEN, WIDTH)).astype(np.float32)
        empty = {"sums": np.zeros((WIDTH, 0)), "counts": np.zeros(0), "images": np.zeros(0)}
        empty |= {"gram": pack(np.zeros((WIDTH, WIDTH))), "losses": np.zeros(17)}
        memory = make_memory({"kind": kind, "updates": 0}, empty | {"projection": projection})
        return memory.learn(tokens, labels, len(NAMES), How(balance=False))
    shape = (0, TOKEN, TOKEN) if statistic == "covariance" else (0, TOKEN)
    empty = Statistics(np.zeros((0, TOKEN)), np.zeros(shape), np.zeros(0), statistic)
    found = empty.added(tokens[:, 0], labels, len(NAMES))
    spread = pack(found.spread) if statistic == "covariance" else found.spread
    weight = np.float32(found.mean - found.mean.mean(0))
    bias = -np.square(weight).sum(1) / 2
    heads = {
        f"{k}.{p}": v
        for k in ("head", "head.trained")
        for p, v in (("weight", weight), ("bias", bias))
    }
    tensors = {"feature.mean": found.mean, "feature.spread": spread, "counts": found.counts}
    head = {"name": "head", "part": "feature", "token": 0, "factor": 1.0, "normalised": False}
    about = {"kind": "aligned", "updates": 0, "closed": False, "heads": [head], "sizes": [3]}
    how = SLCA | {"statistic": statistic}
    return make_memory(
        about | {"alignment": how}, {k: np.float32(v) for k, v in (tensors | heads).items()}
    )


def with_examples(memory):
    """Return a memory with the thresholds and examples of an export."""
    tokens = np.concatenate([tokens_of(draw_images(name, 20, 1)) for name in NAMES])
    empty = {"threshold": np.zeros(0), "owners": np.zeros(0), "examples": tokens[:0]}
    before = make_memory(memory.about, memory.tensors | empty)
    return memory.after(before, tokens, np.arange(len(NAMES)).repeat(20))


def write_learner(folder, kind="ridge", statistic="variance", examples=False):
    """Write a student of three colours; its feature depends on the mean colour of an image.

    Args:
        folder: folder to make.
        kind: `ridge`, `fecam` or `aligned`.
        statistic: of `aligned`.
        examples: whether it has thresholds and examples.
    """
    folder.mkdir(parents=True)
    memory = first_memory(kind, statistic)
    memory = with_examples(memory) if examples else memory
    _write_graph(memory, folder / "model.onnx")
    write_memory(memory, folder / MEMORY)
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in NAMES))
    (folder / "preprocessing.json").write_text('{"input": {"name": "images", "type": "uint8"}}')
    (folder / "student.py").write_text(program(MODALITIES["images"], memory.about["kind"]))
    (folder / "card.md").write_text("# A student\n")
    manifest.write(folder, MADE_FROM)
    return folder


def write_photos(folder, names=NEW, n=10, seed=2):
    """Write images as folder/CLASS/IMAGE."""
    for name in names:
        (folder / name).mkdir(parents=True)
        for i, pixels in enumerate(draw_images(name, n, seed)):
            Image.fromarray(pixels).save(folder / name / f"{i:02}.png")
    return folder


def _write_graph(memory, file):
    """Write a graph from images to logits and features with the heads of a memory."""
    given = {"axes": np.int64([1, 2]), "one": np.int64([1]), "white": np.float32(255)}
    given |= {"waves": WAVES, "phases": PHASES}
    nodes = [
        helper.make_node("Cast", ["images"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["real", "axes"], ["mean"], keepdims=0),
        helper.make_node("Div", ["mean", "white"], ["colour"]),
        helper.make_node("MatMul", ["colour", "waves"], ["wave"]),
        helper.make_node("Add", ["wave", "phases"], ["shifted"]),
        helper.make_node("Sin", ["shifted"], ["token"]),
        helper.make_node("Unsqueeze", ["token", "one"], ["features"]),
    ]
    if "projection" in memory.tensors:
        given |= {"w": memory.tensors["projection"], "v": memory.tensors["weight"].T}
        nodes += [
            helper.make_node("MatMul", ["token", "w"], ["wide"]),
            helper.make_node("Relu", ["wide"], ["random"]),
            helper.make_node("MatMul", ["random", "v"], ["logits"]),
        ]
    elif "precision" in memory.tensors:
        given |= {"means": memory.tensors["weight"], "inverse": unpack(memory.tensors["precision"])}
        products = {"equation": "ncd,cde,nce->nc"}
        nodes += [
            helper.make_node("LpNormalization", ["features"], ["unit"], axis=2, p=2),
            helper.make_node("Sub", ["unit", "means"], ["apart"]),
            helper.make_node("Einsum", ["apart", "inverse", "apart"], ["distances"], **products),
            helper.make_node("Neg", ["distances"], ["logits"]),
        ]
    else:
        given |= {"w": memory.tensors["head.weight"].T, "v": memory.tensors["head.bias"]}
        nodes += [
            helper.make_node("MatMul", ["token", "w"], ["product"]),
            helper.make_node("Add", ["product", "v"], ["logits"]),
        ]
    graph = helper.make_graph(
        nodes,
        "student",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", "h", "w", 3])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3]),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 1, TOKEN]),
        ],
        [numpy_helper.from_array(np.ascontiguousarray(v), k) for k, v in given.items()],
    )
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), file)
