"""ONNX files as backbones: features, what is refused, and where they stand in a plan."""

import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import onnx_files
import onnxruntime
import pytest
import torch
from lab import make_grid
from onnx import TensorProto, helper

from cdl.backbones.check import check
from cdl.backbones.extractor import FeatureExtractor
from cdl.backbones.fetch import fetch
from cdl.backbones.images import ImageBackbone
from cdl.backbones.onnx_file import open_network, operations
from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError, Interrupted
from cdl.study.configuration import ConfigError
from cdl.study.learning_jobs import user_files
from cdl.study.validation import methods_of
from cdl.training.checkpointing import State

HEADS = ["simple_cil", "fecam", "ranpac", "head_only"]


@pytest.fixture
def file(tmp_path, monkeypatch):
    """The path of an ONNX file in the current folder."""
    monkeypatch.chdir(tmp_path)
    onnx_files.write(tmp_path / "toy.onnx")
    return tmp_path / "toy.onnx"


def test_features_are_those_of_the_file_in_every_batch(file):
    fetch("b.safetensors", "onnx", "toy.onnx", **onnx_files.NORMALIZED)
    backbone = ImageBackbone.load("b.safetensors", 8, "backbone")
    assert isinstance(backbone, FeatureExtractor) and backbone.width == 16
    images = torch.rand(5, 3, 8, 8)
    expected = onnx_files.features(images.numpy())
    np.testing.assert_allclose(backbone.query(images), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(backbone.query(images), backbone.query(images))
    convolution, product = 2 * 4 * 4 * 4 * 27, 2 * 64 * 16
    assert backbone.outside == convolution + product
    record = artifacts.read_json("b.json")
    assert record["onnxruntime"] == onnxruntime.__version__
    assert record["parameters"] == 4 * 27 + 64 * 16 + 16 == backbone.model.weights.numel()
    assert record["file_sha256"] == artifacts.fingerprint_file(file)


def test_the_operations_of_a_product_with_a_vector_count(file):
    product = [
        helper.make_node("MatMul", ["first", "zero"], ["number"]),  # [n], with one dimension
        helper.make_node("Unsqueeze", ["number", "axis"], ["column"]),
        helper.make_node("Add", ["first", "column"], ["features"]),
    ]
    counted = []
    for more in ([], product):
        onnx_files.write(file, more=more)
        counted.append(operations(open_network(file.read_bytes(), "toy.onnx", 1), 8))
    assert counted[1] == counted[0] + 2 * 16


@pytest.mark.parametrize("part", ["mean", "std"])
def test_the_fingerprint_covers_the_normalisation(file, part):
    for name, change in (("one", {}), ("other", {part: [0.1, 0.2, 0.3]})):
        fetch(f"{name}.safetensors", "onnx", "toy.onnx", **onnx_files.NORMALIZED | change)
    one, other = (artifacts.read_json(f"{name}.json")["fingerprint"] for name in ("one", "other"))
    assert one != other


def test_check_names_the_methods(file):
    found = check("toy.onnx")
    assert not found.problem and found.width == 16 and found.difference < 1e-5
    assert methods_of(found.shape) == HEADS
    onnx_files.write(file, shape=["n", 3, "side", "side"])  # 64 inputs of the product need 8 pixels
    assert "cannot be run by onnxruntime" in check("toy.onnx").problem


def test_check_reads_what_planning_reads(file):
    name = file.rename("mine.ONNX").name
    assert make_grid(config(block={"onnx": name})).sizes(["vit_nano"]) == {"vit_nano": 8}
    assert not check(name).problem
    with pytest.raises(CdlError, match="^mine.ONNX: has its own weights; leave out those of w.s"):
        check(name, Path("w.safetensors"))


def _nodes(kind, *more, **attributes):
    return {"more": [helper.make_node(kind, ["first", *more], ["features"], **attributes)]}


def _input(shape, kind=TensorProto.FLOAT):
    """Another input, of which the network of the file can make its own."""
    before = [
        helper.make_node("Cast", ["images"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["cast", "layout"], ["real"]),
    ]
    return _rewritten(shape=shape, kind=kind, before=before)


def _rewritten(**changes):
    return lambda file: onnx_files.write(file, **changes)


def _external(location):
    def attack(file):
        model = onnx_files.model_of()
        tensor = model.graph.initializer[0]
        size = len(tensor.raw_data)
        (file.parent / "weights.bin").write_bytes(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        place = location.format(file.parent)
        for key, value in (("location", place), ("offset", "0"), ("length", str(size))):
            tensor.external_data.add(key=key, value=value)
        file.write_bytes(model.SerializeToString())

    return attack


def _not_finite_alone(file):
    """Features plus log(n - 1.5) of `n` images."""
    number = helper.make_tensor("some", TensorProto.FLOAT, [1], [1.5])
    more = [
        helper.make_node("Shape", ["first"], ["n"], start=0, end=1),
        helper.make_node("Cast", ["n"], ["images given"], to=TensorProto.FLOAT),
        helper.make_node("Constant", [], ["some"], value=number),
        helper.make_node("Sub", ["images given", "some"], ["more"]),
        helper.make_node("Log", ["more"], ["log"]),
        helper.make_node("Add", ["first", "log"], ["features"]),
    ]
    onnx_files.write(file, more=more)


def _huge_tensor(file):
    made = helper.make_tensor("many", TensorProto.INT64, [1], [1 << 46])
    more = [
        helper.make_node("Constant", [], ["many"], value=made),
        helper.make_node("ConstantOfShape", ["many"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0),
        helper.make_node("Add", ["first", "sum"], ["features"]),
    ]
    onnx_files.write(file, more=more)


def _endless(file):
    """A loop whose condition stays true."""
    whole = TensorProto.BOOL, []
    given = [
        helper.make_tensor_value_info(n, *t)
        for n, t in (("i", (TensorProto.INT64, [])), ("on", whole))
    ]
    made = [helper.make_tensor_value_info("still", *whole)]
    body = helper.make_graph([helper.make_node("Identity", ["on"], ["still"])], "body", given, made)
    more = [
        helper.make_node(
            "Constant", [], ["go"], value=helper.make_tensor("go", TensorProto.BOOL, [], [True])
        ),
        helper.make_node("Loop", ["", "go"], [], body=body),
        helper.make_node("Identity", ["first"], ["features"]),
    ]
    onnx_files.write(file, more=more)


def _linked(target):
    def attack(file):
        file.unlink()
        file.symlink_to(target)

    return attack


ATTACKS = {
    "no file": (lambda f: f.unlink(), "cannot be read"),
    "a pickle": (lambda f: f.write_bytes(b"\x80\x04K"), "cannot be opened by onnxruntime"),
    "cut": (lambda f: os.truncate(f, 600), "cannot be opened by onnxruntime"),
    "a huge file": (lambda f: os.truncate(f, (2 << 30) + 1), "larger than 2048 MiB"),
    "a huge tensor": (_huge_tensor, "cannot be run by onnxruntime"),
    "a loop": (_endless, "contains the operator Loop; expected a graph without loops"),
    "a device": (_linked("/dev/zero"), "is not a regular file"),
    "a link to nothing": (_linked("none.onnx"), "cannot be read"),
    "weights beside": (_external("weights.bin"), "cannot be opened by onnxruntime"),
    "weights anywhere": (_external("{}/weights.bin"), "cannot be opened by onnxruntime"),
    "weights above": (_external("../{}/weights.bin"), "cannot be opened by onnxruntime"),
    "two outputs": (_rewritten(outputs=2), "1 inputs and 2 outputs; expected one of each"),
    "rank 3": (_input([3, 8, 8]), r"its input is tensor\(float\) \[3, 8, 8\]; expected tensor"),
    "channels last": (_input(["n", 8, 8, 3]), "expected tensor"),
    "not square": (_input(["n", 3, 8, 16]), "expected tensor"),
    "bytes": (_input(["n", 3, 8, 8], TensorProto.UINT8), r"its input is tensor\(uint8\)"),
    "another size": (_rewritten(shape=["n", 3, "h", 16]), "cannot be run by onnxruntime"),
    "unknown rank": (_rewritten(shape=None), "invalid size None; expected the side of its images"),
    "two images": (_input([2, 3, 8, 8]), "any n or 1"),
    "one image": (_input([1, 3, 8, 8]), "one image at a time; export it with a free"),
    "a size": (_rewritten(shape=["n", 3, 16, 16]), "cannot be opened by onnxruntime"),
    "any size": (_rewritten(shape=["n", 3, "s", "s"]), "invalid size None; expected the side"),
    "a map": (_rewritten(**_nodes("Reshape", "map")), r"float32 \(2, 16, 1, 1\) for two images"),
    "one number": (_rewritten(**_nodes("ReduceMean", axes=[1], keepdims=0)), r"float32 \(2,\) for"),
    "nothing": (
        _rewritten(**_nodes("Slice", "start", "start", "axis")),
        r"float32 \(2, 0\) for two",
    ),
    "not finite": (_rewritten(**_nodes("Log")), "random images are not finite"),
    "not finite alone": (_not_finite_alone, "random images are not finite"),
    "batches": (_rewritten(**_nodes("Softmax", axis=0)), "depends on the others of its batch"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_is_damaged_or_hostile_is_refused_before_any_job(file, attack):
    change, sentence = ATTACKS[attack]
    change(file)
    with pytest.raises(ConfigError, match=f"^backbones.vit_nano.onnx: toy.onnx: .*{sentence}"):
        make_grid(config())


def config(method="head_only", distiller="kd", block=(), **changes):
    """Changes to the tiny configuration, with an ONNX file as student and its own teacher."""
    given = {"embedded": None, "onnx": "toy.onnx", **onnx_files.NORMALIZED, **dict(block)}
    grid = {"methods": [method], "distillers": ["none", distiller], "exclude": []}
    return {"backbones": {"vit_nano": given}, "grid": grid, **changes}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"block": {"mean": None}}, "backbones.vit_nano.mean: is missing; expected three numbers"),
        ({"block": {"std": None}}, "backbones.vit_nano.std: is missing"),
        ({"block": {"std": [0.5, 0.5, 0.0]}}, "backbones.vit_nano.std.2: .*minimum of 0"),
        ({"block": {"size": 16}}, "invalid size 16; expected 8, since it reads images of 8"),
        ({"block": {"model": "resnet18"}}, "model: only valid together with file"),
        ({"block": {"onnx": None, "embedded": "vit_nano_patch4_32"}}, "mean: only valid .* onnx"),
        ({"method": "l2p"}, "methods.l2p: 'toy.onnx' cannot be prompted: .* only: simple_cil"),
        ({"distiller": "fitnets"}, "distillers.fitnets: 'toy.onnx' cannot be .* of logits: "),
        ({"compute": {"precision": "bf16"}}, "compute.precision: invalid value 'bf16' for 'vit_n"),
        ({"compute": {"capture": True}}, "capture: invalid value true for 'vit_nano'; expected f"),
    ],
)
def test_what_a_file_cannot_be_used_for_is_refused(file, changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        make_grid(config(**changes))


def test_a_changed_file_is_fetched_again(file):
    def digest():
        grid = make_grid(config())
        assert grid.sizes(["vit_nano"]) == {"vit_nano": 8}
        return user_files(grid).backbone_digest(grid.backbone_name("vit_nano"))

    before = digest()
    os.utime(file)
    assert digest() == before
    onnx_files.write(file, licence="MIT")
    assert digest() != before


def test_a_stopped_job_resumes_bit_identical(lab, inputs, tmp_path, monkeypatch):
    own = tmp_path / "own"
    shutil.copytree(inputs, own)
    block = onnx_files.write(own / "toy.onnx")
    fetch(own / "vit_nano.safetensors", "onnx", block["onnx"], **onnx_files.NORMALIZED)
    due, steps, made = State.due, [], []

    def third_step(self):
        steps.append(1)
        if len(steps) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return due(self)

    for name in ("undisturbed", "stopped"):
        here = lab({"name": name, **config(block=block), "training": {"epochs": 3}})
        here.inputs, run = own, here.student("none")
        if name == "stopped":
            monkeypatch.setattr(State, "due", third_step)
            with pytest.raises(Interrupted):
                here.learn(run, 0)
        here.learn(run, 0)
        made.append(artifacts.fingerprint_file(here.checkpoint(run, 0)))
    assert made[0] == made[1] and len(steps) > 3


def test_without_the_packages_a_sentence_says_what_to_install(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(CdlError, match=r"onnx, which is not installed: pip install 'cdl-work"):
        make_grid(config())
