"""Classifiers as teachers: their answers for packed items, and what is refused."""

import json
import os

import numpy as np
import pytest
import torch
from classifiers import CLASSES, MAKERS, of_onnx, of_timm, of_transformers
from text_lab import CLASSES as TOPICS
from text_lab import write_csv
from toy_text import KINDS, save_classifier, word_tokenizer

from cdl.backbones.classifiers import ClassifierSource
from cdl.data.answers import read_answers
from cdl.data.packed import Packed
from cdl.data.packing import prepare
from cdl.data.text import decoded
from cdl.runtime.artifacts import fingerprint_file
from cdl.runtime.errors import CdlError
from cdl.runtime.jobs import Execution
from cdl.training.classified import check_classified, classify

FEW = {"train": 2, "test": 1}


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Packed texts of four topics."""
    folder = tmp_path_factory.mktemp("topics")
    write_csv(folder / "csv")
    prepare(folder / "data", {"name": "csv", "path": str(folder / "csv")})
    return folder / "data"


@pytest.fixture
def answers(inputs, tmp_path):
    """Return the table that a classifier writes for the digits, or for other packed data."""

    def made(given, data=inputs / "data"):
        sha256 = ClassifierSource.of(given).sha256(fingerprint_file)
        table, record = str(tmp_path / "answers.parquet"), str(tmp_path / "answers.json")
        how = {"images_per_class": FEW, "execution": Execution(device="cpu")}
        classify(given, sha256, str(data), table, record, **how)
        packed = [Packed(data, split) for split in FEW]
        check_classified(table, sha256, *packed)
        with pytest.raises(CdlError, match="classifier"):
            check_classified(table, "other", *packed)
        return read_answers(table, "classifier")

    return made


@pytest.mark.parametrize("kind", MAKERS)
def test_answers_are_the_models_outputs_and_the_same_each_time(answers, tmp_path, kind):
    given = MAKERS[kind](tmp_path / f"toy.{kind}")
    first, again = answers(given), answers(given)
    assert first.classes == tuple(CLASSES) and len(first.rows) == 30
    assert (first.logits == again.logits).all() and np.ptp(first.logits) > 0


@pytest.mark.parametrize("shape", [["n", 3, 8, 8], ["n", 3, "h", 8], ["n", "c", 8, "w"], None])
def test_images_are_prepared_as_the_model_says(answers, inputs, tmp_path, shape):
    given = of_onnx(tmp_path / "toy.onnx", shape=shape)
    packed = Packed(inputs / "data", "train")
    table = answers(given)
    name = next(iter(table.rows))
    (row,) = np.flatnonzero(packed.names == name)
    (pixels,), _, _ = next(packed.pixels(torch.tensor([row])).parts(torch.tensor([0])))
    assert pixels.shape == (3, 8, 8)
    weights = np.random.default_rng(0).normal(size=(192, 10)).astype(np.float32)
    expected = ((pixels.numpy() / 255 - 0.5) / 0.5).reshape(192) @ weights
    assert np.allclose(table.of([name], CLASSES)[0], expected, atol=1e-4)


@pytest.mark.parametrize("kind", [*KINDS, "deberta-v2", "electra", "albert"])
def test_a_text_has_the_same_answer_alone_as_in_a_batch(answers, texts, tmp_path, kind):
    from transformers import AutoModelForSequenceClassification

    given = save_classifier(tmp_path / "toy", TOPICS, kind)
    table, packed = answers(given, texts), Packed(texts, "train")
    assert set(table.classes) == {*TOPICS} and len(table.rows) == 12
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "toy").eval()
    for row in [packed.names.tolist().index(name) for name in list(table.rows)[:8]]:
        (items, *_), *_ = packed.pixels(torch.tensor([row])).parts(torch.tensor([0]))
        (text,) = decoded(items[:, 0, 0])
        with torch.inference_mode():
            ids = torch.tensor([word_tokenizer().encode(text).ids])
            (expected,) = model(ids, attention_mask=torch.ones_like(ids)).logits.numpy()
        found = table.of([packed.names[row]], [*TOPICS])[0]
        assert np.allclose(found, expected, atol=1e-4), text


def test_a_classifier_of_other_items_is_refused(answers, texts, tmp_path):
    with pytest.raises(CdlError, match="timm classifies images; the data has texts"):
        answers(of_timm(tmp_path / "a", [*TOPICS]), texts)
    with pytest.raises(CdlError, match="classifies images, the data has texts"):
        answers(of_transformers(tmp_path / "b", [*TOPICS]), texts)
    with pytest.raises(CdlError, match="classifies texts, the data has images"):
        answers(save_classifier(tmp_path / "c", CLASSES))


def test_a_mapping_adds_outputs_of_one_class_as_probabilities(answers, tmp_path):
    own = [f"model {i}" for i in range(10)]
    given, whole = of_timm(tmp_path / "a", own), of_timm(tmp_path / "b")
    pairs = {"model 3": "0", "4": "0", "5": "1"}
    (tmp_path / "map.json").write_text(json.dumps(pairs))
    table, others = answers(given | {"classes": str(tmp_path / "map.json")}), answers(whole)
    assert table.classes == ("0", "1")
    expected = np.exp(others.logits[:, 3]) + np.exp(others.logits[:, 4])
    assert np.allclose(np.exp(table.logits[:, 0]), expected, rtol=1e-4)


def _edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def _only_a_pickle(folder):
    os.rename(folder / "model.safetensors", folder / "pytorch_model.bin")


def _a_link_to_a_device(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("/dev/zero")


def _large(file):
    os.truncate(file, (2 << 30) + 1)


ATTACKS = [
    ("timm", _only_a_pickle, "is a pickle, which may run code"),
    ("hf", _only_a_pickle, "is a pickle, which may run code"),
    ("timm", _a_link_to_a_device, "is not a regular file"),
    ("timm", lambda f: (f / "model.safetensors").write_bytes(b"\x80\x04K"), "cannot be read"),
    ("timm", lambda f: (f / "config.json").write_text("{"), "cannot be read"),
    ("timm", lambda f: _edit(f / "config.json", architecture="hf-hub:a/b"), "no architecture"),
    ("timm", lambda f: _edit(f / "config.json", num_classes=12), "10 label_names for 12"),
    (
        "timm",
        lambda f: _edit(f / "config.json", num_classes=12, label_names=[*CLASSES, "a", "b"]),
        "wrong shape",
    ),
    (
        "timm",
        lambda f: _edit(f / "config.json", model_args={"checkpoint_path": "x.pth"}),
        "multiple values",
    ),
    ("timm", lambda f: _edit(f / "config.json", model_args={"stem_size": 10**9}), "above 10000"),
    (
        "timm",
        lambda f: _edit(f / "config.json", pretrained_cfg={"input_size": [3, 10**6, 32]}),
        "invalid input_size",
    ),
    ("hf", lambda f: _edit(f / "config.json", architectures=["ViTModel"]), "is ViTModel; expected"),
    ("hf", lambda f: _edit(f / "config.json", model_type="a-remote-one"), "cannot be opened"),
    ("hf", lambda f: _edit(f / "config.json", quantization_config={}), "is quantised"),
    (
        "hf",
        lambda f: _edit(
            f / "preprocessor_config.json",
            auto_map={"AutoImageProcessor": "code.Own"},
            image_processor_type="Own",
        ),
        "cannot be opened by transformers",
    ),
    ("student", lambda f: (f / "classes.txt").write_text("0\n1\n"), "was damaged or changed"),
    ("student", lambda f: (f / "manifest.json").unlink(), "manifest.json"),
    ("onnx", lambda f: f.write_bytes(b"\x80\x04K"), "cannot be opened by onnxruntime"),
    ("onnx", _large, "larger than 2048 MiB"),
    ("onnx", lambda f: of_onnx(f, bias=np.nan), "is not finite"),
    ("onnx", lambda f: f.with_suffix(".csv").write_text("model,data\n0,0\n10,1\n"), "at least 11"),
    ("onnx", lambda f: f.with_suffix(".csv").write_text("model,data\n0,0\n0,1\n"), "there twice"),
    ("onnx", lambda f: f.with_suffix(".csv").write_text("0,0\n"), "has no row"),
    ("onnx", lambda f: f.with_suffix(".csv").write_text("model,data\n-1,0\n"), "not a class of"),
]


@pytest.mark.parametrize(("kind", "attack", "sentence"), ATTACKS)
def test_what_is_damaged_or_hostile_is_refused_in_a_sentence(
    answers, tmp_path, kind, attack, sentence
):
    given = MAKERS[kind](place := tmp_path / f"toy.{kind}")
    attack(place)
    with pytest.raises(CdlError, match=sentence):
        answers(given)


def test_code_in_a_folder_is_not_run(answers, tmp_path):
    auto = {"auto_map": {"AutoModelForImageClassification": "code.Own"}}
    given = of_transformers(tmp_path / "toy", **auto, attn_implementation="someone/kernel")
    (tmp_path / "toy" / "code.py").write_text("raise SystemExit('was run')")
    assert len(answers(given).rows) == 30


def test_tensors_in_other_files_are_refused(answers, tmp_path, monkeypatch):
    import onnx

    given = of_onnx(tmp_path / "toy.onnx")
    monkeypatch.chdir(tmp_path)
    model = onnx.load("toy.onnx")
    how = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
    onnx.save(model, "toy.onnx", **how)
    with pytest.raises(CdlError, match="cannot be opened by onnxruntime"):
        answers(given)
