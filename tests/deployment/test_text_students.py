"""Exported students of texts: equal to torch, without torch, and they learn new classes."""

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from learnable import place_inputs
from text_lab import CLASSES, text_config, text_lab, write_inputs
from tokenizers import Tokenizer, models, pre_tokenizers

import cdl
from cdl.cli import student as commands
from cdl.data.modalities import MODALITIES
from cdl.deployment.bundle import program
from cdl.deployment.demo import site
from cdl.deployment.export import export
from cdl.deployment.learn import learn
from cdl.device.texts import Texts
from cdl.runtime.errors import CdlError

NEW = "the my the my my"  # words of a class that the student never saw
DEVICE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "cdl", "transformers", "PIL", "timm", "pandas"}:
            raise ImportError(f"{name} is not on the device")
sys.meta_path.insert(0, Refuse())
sys.path.insert(0, sys.argv[1])
import student
sys.exit(student.main(student.Student, sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Finished runs of all kinds of heads by name, and the folder of the CSV files."""
    inputs = write_inputs(tmp_path_factory.mktemp("texts"))
    config = text_config(inputs)
    lined = {"preset": "slca", "statistic": "centroid"}
    l2p = {**config["methods"]["l2p"], "alignment": lined}
    methods = {**config["methods"], "l2p": l2p, "lora": {"rank": 2}}
    methods["ranpac"] = {"projection": 60, "logit_scale": 2.0}  # a small factor: parity is absolute
    grid = {**config["grid"], "methods": ["l2p", "ranpac", "head_only", "lora"]}
    folder = tmp_path_factory.mktemp("lab") / "results"
    place_inputs(folder, inputs, ("large", "small"), "tickets")
    lab = text_lab(inputs, folder / "texts", methods=methods, grid=grid)
    found = {}
    for run in lab.grid.runs:
        alone = run.method.name == "head_only" and run.distiller.name == "none"
        if run.role == "student" and (alone or run.distiller.name == "kd"):
            lab.learn_all(run)
            lab.evaluate(run)
            found["alone" if alone else run.method.name] = lab.folder / run.folder
    return found


@pytest.fixture(scope="module")
def exports(runs, tmp_path_factory):
    """Exported folders, and the results of the exports, by method."""
    made = tmp_path_factory.mktemp("exports")
    return {n: (made / n, export(run, made / n)) for n, run in runs.items() if n != "alone"}


@pytest.fixture
def folder(exports, tmp_path):
    """A copy of the folder of a ridge, which may change."""
    return shutil.copytree(exports["ranpac"][0], tmp_path / "student")


def write_new(path, n=10, name="lost"):
    words = NEW.split()
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label"])
        for i in range(n):
            own = [words[(i + j) % len(words)] for j in range(3 + i % 3)]
            rows.writerow([" ".join(own), name])
    return path


@pytest.mark.parametrize("method", ["l2p", "ranpac", "head_only", "lora"])
def test_an_export_predicts_like_torch_and_like_the_evaluation(runs, exports, method):
    folder, result = exports[method]
    assert result.parity.holds and result.parity.images == 48
    assert result.parity.largest < 1e-4
    assert "48 of 48 test texts" in result.text()
    texts = ["book a table", "where is my parcel please now", "refund", "one two three four one"]
    found = [cdl.load(path).predict_proba(texts) for path in (folder, runs[method])]
    np.testing.assert_allclose(*found, atol=1e-4)
    about = json.loads((folder / "preprocessing.json").read_text())
    assert about["modality"] == "text" and about["input"]["name"] == "ids"
    card = (folder / "card.md").read_text()
    assert "text-classification" in card and "images" not in card
    assert "cdl predict FOLDER TEXT" in card


def test_branches_are_merged_into_the_weights_of_an_encoder(exports):
    kinds = {
        name: sorted(node.op_type for node in onnx.load(exports[name][0] / "model.onnx").graph.node)
        for name in ("lora", "head_only")
    }
    assert kinds["lora"] == kinds["head_only"]


def test_a_long_text_is_cut_off_as_in_training(runs, exports):
    long = " ".join(["book a table for two"] * 20)
    for model in (exports["l2p"][0], runs["l2p"]):
        found = cdl.load(model).predict_proba([long, " ".join(long.split()[:14])])
        np.testing.assert_allclose(found[0], found[1], atol=1e-5)


def test_the_program_of_texts_needs_neither_torch_nor_pillow():
    text = program(MODALITIES["text"], "ridge")
    assert "PIL" not in text and "import torch" not in text and "cdl.data" not in text
    assert "numpy, onnxruntime, safetensors and tokenizers" in text
    compile(text, "student.py", "exec")


def test_a_new_class_is_learnt_on_a_device_and_undone(folder, tmp_path, capsys):
    def on_device(*arguments, lines=""):
        command = [sys.executable, "-c", DEVICE, str(folder), *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, input=lines, text=True, capture_output=True)

    new = write_new(tmp_path / "new.csv")
    first = on_device("predict", "book a table", "-", "--top", 1, "--json", lines="refund\n\n")
    assert first.returncode == 0, first.stderr
    lines = [json.loads(line) for line in first.stdout.splitlines()]
    assert [line["text"] for line in lines] == ["book a table", "refund"]
    mistaken = on_device("predict", "new.csv")
    assert mistaken.returncode == 1
    assert "new.csv: is a file; expected a text, or - to read texts from stdin" in mistaken.stderr
    assert lines[0]["predictions"][0]["class"] == "booking"
    commands.predict(str(folder), ["book a table", "refund"], 1, as_json=True)
    assert capsys.readouterr().out == first.stdout
    learnt = on_device("learn", new)
    assert learnt.returncode == 0, learnt.stderr
    assert "learnt lost" in learnt.stdout and "10 texts at" in learnt.stdout
    student = cdl.load(folder)
    assert student.classes == (*student.classes[:4], "lost")
    assert student.predict("the my the my") == ["lost"]
    assert student.predict(list(CLASSES.values())).count("lost") <= 1
    assert on_device("undo").returncode == 0
    assert on_device("info").returncode == 0 and len(cdl.load(folder).classes) == 4
    costs = on_device("costs")
    assert [row["count"] for row in json.loads(costs.stdout)["learn"]] == [1, 10, 100]
    refused = on_device("predict", "  ")
    assert refused.returncode == 1 and "expected a text that is not blank" in refused.stderr


def test_a_run_learns_a_task_from_a_csv_file(runs, tmp_path):
    file = write_new(tmp_path / "new.csv", n=10)
    with open(file, "a", newline="") as more:
        csv.writer(more).writerows((f"three four {i}", "count more") for i in range(8))
    found = learn(runs["alone"], file, "taught")
    assert found.classes == ("count more", "lost") and len(found.after) == 3
    student = cdl.load(found.run)
    assert [*student.classes] == [*cdl.load(runs["alone"]).classes, "count more", "lost"]
    with pytest.raises(CdlError, match="'lost': learnt already"):
        learn(Path(found.run), file, "again")


@pytest.mark.parametrize("method", ["l2p", "ranpac"])
def test_cdl_learn_teaches_an_export_from_a_csv_file(exports, method, tmp_path, capsys):
    folder = shutil.copytree(exports[method][0], tmp_path / "student")
    more = tmp_path / "more.txt"
    more.write_text("the my my\n\nmy my the the\n")
    tests = write_new(tmp_path / "tests.csv", 4)
    commands.learn(str(folder), write_new(tmp_path / "new.csv"), test=tests, unlabelled=more)
    assert "learnt lost" in capsys.readouterr().out
    assert cdl.load(folder).predict_proba(["the my the my"])[0, -1] > 0.05
    cdl.load(folder).learn({"hello": ["one text alone"]})
    assert cdl.load(folder).classes[-1] == "hello"


def test_wrong_files_change_nothing(folder, tmp_path):
    student, file = cdl.load(folder), tmp_path / "new.csv"
    for content, message in (
        ("a,b\nx,y\n", "no column 'text'"),
        ("text,label\n", "contains no text"),
        ("text,label\nx,a/b\n", "line 2.*invalid class name 'a/b'"),
        ("text,label\nx,a\n ,a\n", "line 3 contains ' '; expected a text that is not blank"),
    ):
        file.write_text(content)
        with pytest.raises(CdlError, match=message):
            student._student.items.by_class(file)
    with pytest.raises(CdlError, match="not blank"):
        student.learn({"new": ["  "]})
    with pytest.raises(CdlError, match="texts: there is none of any class"):
        student.learn({})
    assert cdl.load(folder).version == 0


def test_int8_rounds_the_table_of_embeddings_too(runs, exports, tmp_path, monkeypatch):
    whole, plain = exports["head_only"]

    def copy(_, path):  # of the same graph, whose writing takes seconds
        shutil.copy(whole / "model.onnx", path)

    monkeypatch.setattr("cdl.deployment.export.write_onnx", copy)
    rounded = export(runs["head_only"], tmp_path / "dynamic", int8="dynamic")
    graph = onnx.load(tmp_path / "dynamic" / "model.onnx").graph
    table = next(t for t in graph.initializer if "word_embeddings" in t.name and t.dims)
    assert table.data_type != onnx.TensorProto.FLOAT and list(table.dims) == [32, 12]
    assert rounded.bytes < plain.bytes
    assert rounded.int8.accuracy[1] > rounded.int8.accuracy[0] - 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timm": True}, "--format timm: is not available for texts, .*; expected onnx"),
        ({"executorch": True}, "--format executorch: is not available for texts"),
        ({"int8": "static"}, "--int8 static: is not available for texts, .*; expected dynamic"),
    ],
)
def test_what_is_for_images_is_refused(runs, tmp_path, options, message):
    with pytest.raises(CdlError, match=message):
        export(runs["ranpac"], tmp_path / "x", **options)
    assert not (tmp_path / "x").exists()


def test_a_page_of_images_is_refused(exports):
    with pytest.raises(CdlError, match="is a student of texts; expected one of images"):
        site(exports["ranpac"][0])


def test_a_missing_tokenizer_is_named(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CdlError, match="tokenizer.json"):
        cdl.load(folder)
    with pytest.raises(CdlError, match="tokenizer.json: cannot be read"):
        Texts.open(folder)


def test_random_texts_have_a_number_of_tokens_for_any_vocabulary():
    for vocabulary in ({"[UNK]": 0, "book": 1, "table": 2}, {"[UNK]": 0, "1": 1, "?": 2}):
        made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
        made.pre_tokenizer = pre_tokenizers.Whitespace()
        for text in Texts(made).random(10, (1, 16)):
            assert 8 <= len(made.encode(text).ids) <= 16


def test_a_text_without_a_token_is_refused():
    made = Tokenizer(models.BPE({"a": 0}, []))
    assert Texts(made).array(["a"]).tolist() == [[0]]
    for texts in (["?"], ["a", "?"]):
        with pytest.raises(CdlError, match="has no token that the tokenizer knows"):
            Texts(made).array(texts)


def test_lines_are_texts(exports):
    items = cdl.load(exports["ranpac"][0])._student.items
    assert items.listed(["a b", "-"], io.StringIO("c\n\n d \n")) == ["a b", "c", "d"]
    assert len(items.random(3)) == 3 and len(items.tokenizer.encode(items.random(1)[0]).ids) == 16
