"""Exports of a finished run predict what was evaluated; invalid exports are rejected."""

import contextlib
import functools
import html
import json
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from exported import write_student
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from test_student import KD, RUNS, pictures

import cdl
from cdl.cli.app import main
from cdl.deployment import export as room
from cdl.deployment import manifest
from cdl.deployment.card import escaped
from cdl.deployment.export import deploy, export
from cdl.deployment.graph import to_int8
from cdl.deployment.measure import measure
from cdl.deployment.parity import Parity, _unlike, training_images
from cdl.layout import WEIGHTS
from cdl.runtime.artifacts import check_files, fingerprint_file, read_json, write_json
from cdl.runtime.errors import CdlError

MAPPED = f"{RUNS}/cdl_prompt-vit_nano-from-vit_micro-q-vit_nano/seed0"


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    """A function from a run to the folder and the result of its export, made once."""

    @functools.cache
    def made(run):
        folder = tmp_path_factory.mktemp("exported") / "student"
        return folder, export(finished / run, folder)

    return made


@pytest.fixture(scope="module")
def same_graph(exported):
    """A block in which the exported graph is copied where the same one would be written."""

    @contextlib.contextmanager
    def copying():
        graph = exported(KD)[0] / "model.onnx"
        with pytest.MonkeyPatch.context() as patched:  # writing takes seconds
            patched.setattr(room, "write_onnx", lambda _, path: shutil.copy(graph, path))
            yield

    return copying


@pytest.mark.parametrize("run", [KD, pytest.param(MAPPED, marks=pytest.mark.nightly)])
def test_the_export_predicts_what_was_evaluated(finished, exported, run):
    folder, answer = exported(run)
    assert answer.parity.images == 80 and answer.parity.holds and answer.parity.rounded
    assert answer.parity.unlike_torch == 0 and answer.parity.largest < 1e-4
    student = cdl.load(folder)
    images, frame = pictures(finished, run)
    assert student.predict(images) == frame["predicted"].tolist()
    assert student.classes == cdl.load(finished / run).classes
    names = {path.name for path in folder.iterdir()}
    files = {"model.onnx", "classes.txt", "preprocessing.json", "card.md", "student.py"}
    assert names == files | {"manifest.json"}
    about = read_json(folder / "manifest.json")
    assert set(about["files"]) == files
    results = finished / run / "results.json"
    assert about["made_from"] == {
        "run": run.removeprefix("results/"),
        "task": 1,
        "results": fingerprint_file(results),
        "checkpoint": read_json(results)["checkpoints"][1],
        "backbones": read_json(results)["backbones"],
        "cdl": cdl.__version__,
    }
    taught = ["distillation", read_json(results)["learner"]["distiller"]["name"]]
    check_card(folder / "card.md", read_json(finished / run / "results.json"), taught)
    with pytest.raises(CdlError, match="student: already exists"):
        export(finished / run, folder)


def test_a_tie_within_rounding_is_no_difference():
    logits = np.float32([[5, 5 - 1e-6, 0], [5, 4.9, 0], [5, 1, 0]])
    found, expected = np.array([1, 1, 0]), np.array([0, 0, 0])
    assert _unlike(logits, found, expected) == (1, 1)
    assert _unlike(logits, expected, expected) == (0, 0)
    tied = Parity(3, 0, 0, False, 1e-6, ties=1)
    assert tied.holds and "1 of them ties within rounding" in tied.text()
    assert not Parity(3, 1, 1, False, 1e-6, ties=1).holds


def test_the_command_fails_if_predictions_differ_from_the_evaluation(
    copied, tmp_path, same_graph, monkeypatch, capsys
):
    run = copied / KD
    frame = pd.read_parquet(run / "predictions.parquet")
    frame.loc[0, "predicted"] = next(c for c in set(frame["class"]) - {frame.loc[0, "predicted"]})
    frame.to_parquet(run / "predictions.parquet", index=False)
    results = read_json(run / "results.json")
    del results["learner"]["cache_dtype"]
    for task in (0, 1):
        record = run / f"task{task}" / "learner.json"
        made = read_json(record)
        del made["learner"]["cache_dtype"]
        write_json(record, made)
    write_json(run / "results.json", results, [run / "predictions.parquet"])

    def code_of(*options):
        monkeypatch.setattr("sys.argv", ["cdl", "export", str(run), *options])
        with same_graph(), pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code

    assert code_of("-o", str(tmp_path / "student"), "--json") == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["parity"]["unlike_evaluation"] == 1
    assert "predictions differ from the evaluation" in said.err.splitlines()[-1]
    assert code_of("-o", str(tmp_path / "other"), "--no-check") in (0, None)
    assert "predictions not compared" in capsys.readouterr().out


def check_card(path, results, taught):
    """Check that the Hub can read the header and that the text has all required facts."""
    card = ModelCard.load(path)
    data, text = card.data, card.text
    assert (data.library_name, data.pipeline_tag) == ("onnx", "image-classification")
    assert (data.license, data.license_name) == ("other", "non-commercial-research")
    assert data.tags == ["continual-learning", *taught, "onnx", "coda_prompt"]
    numbers = {result.metric_type: result.metric_value for result in data.eval_results}
    for kind, name in (("accuracy", "final_average_accuracy"), ("forgetting", "forgetting_max")):
        assert numbers[kind] == pytest.approx(results["metrics"][name], abs=1e-3)
    assert {result.dataset_name for result in data.eval_results} == {"digits"}
    for task, classes in enumerate((results["classes"][:6], results["classes"][6:])):
        assert f"| {task + 1} | {', '.join(classes)} | {results['matrix'][1][task]:.2f} |" in text
    required = ["## Intended use", "## Limits", "CC BY 4.0", "non-commercial research"]
    required += ["data: digits, 16 training images of each class"]
    required += ["16 training images of each class", "epochs 1", " ms on one thread of ", "seed: 0"]
    assert [words for words in required if words not in text] == []


@pytest.fixture(scope="module")
def deployed(finished, same_graph, tmp_path_factory):
    """Export a run like the rule `deploy`."""
    folder = tmp_path_factory.mktemp("deployed")
    folders = {weights: folder / weights for weights in WEIGHTS}
    with same_graph():
        deploy(finished / KD, folders, folder / "deploy.json", "dynamic")
    return folder


def test_int8_is_a_third_of_the_size_and_its_accuracy_is_recorded(finished, deployed):
    facts = read_json(deployed / "deploy.json")
    check_files(deployed / "deploy.json", *(deployed / w / "model.onnx" for w in WEIGHTS))
    assert facts["bytes"]["int8"] < facts["bytes"]["fp32"] / 3
    images, frame = pictures(finished, KD)
    for weights in WEIGHTS:
        assert len(list((deployed / weights).iterdir())) == 6
        assert not any(manifest.compare(deployed / weights).values())
        right = frame["class"] == cdl.load(deployed / weights).predict(images)
        means = right.groupby(frame["task"]).mean()
        assert 100 * means.mean() == pytest.approx(facts["accuracy"][weights])
    results = read_json(finished / KD / "results.json")["metrics"]
    assert facts["accuracy"]["fp32"] == pytest.approx(results["final_average_accuracy"])
    assert facts["forgetting_max"] == results["forgetting_max"]
    assert abs(facts["accuracy"]["fp32"] - facts["accuracy"]["int8"]) < 5
    card = (deployed / "int8" / "card.md").read_text()
    assert "int8 (dynamic): " in card and "% after" in card


def test_static_quantisation_changes_few_predictions(finished, deployed, tmp_path):
    student = cdl.load(finished / KD)._student
    training = training_images(student)
    assert len(training) == 10 * 12 and training[0].shape == (1, 8, 8, 3)
    shutil.copytree(deployed / "fp32", tmp_path / "static")
    to_int8(tmp_path / "static" / "model.onnx", training)
    size = (tmp_path / "static" / "model.onnx").stat().st_size
    assert size < (deployed / "fp32" / "model.onnx").stat().st_size / 3
    images, _ = pictures(finished, KD)
    folders = (deployed / "fp32", tmp_path / "static")
    loaded = (cdl.load(folder, verify=False) for folder in folders)
    whole, rounded = (student.predict_proba(images) for student in loaded)
    assert 0 < np.abs(whole - rounded).max() < 0.1
    assert (whole.argmax(1) == rounded.argmax(1)).mean() > 0.9


def test_students_are_measured_side_by_side(deployed, tmp_path):
    row = {"dataset": "digits", "run": "r", "protocol": {}, "deployed": str(deployed)}
    out = SimpleNamespace(csv=tmp_path / "deployment.csv", record=tmp_path / "deployment.json")
    measure([deployed / "deploy.json"], [row], 1, out)
    check_files(out.record, out.csv)
    table = pd.read_csv(out.csv)
    assert table["weights"].tolist() == list(WEIGHTS) and "protocol" not in table
    assert table["forgetting_max"].isna().tolist() == [False, True]
    assert (table["latency_p50_ms"] <= table["latency_p95_ms"]).all()
    assert (table[["latency_p50_ms", "images_per_second_1", "images_per_second_2"]] > 0).all(
        axis=None
    )
    assert table["peak_memory_mb"].between(20, 400).all()
    assert table["gflops"].gt(table["gflops_without_query"]).all()
    assert read_json(out.record)["machine"]["onnxruntime"] == onnxruntime.__version__
    copied = tmp_path / "copied"
    shutil.copytree(deployed, copied)
    shutil.copy(copied / "fp32" / "model.onnx", copied / "int8" / "model.onnx")
    row["deployed"] = str(copied)
    with pytest.raises(CdlError, match="int8/model.onnx has sha256 .*one of them was changed"):
        measure([copied / "deploy.json"], [row], 1, out)


def test_a_student_that_needs_its_teachers_vit_is_rejected_by_name(finished, tmp_path, monkeypatch):
    student = cdl.load(finished / MAPPED)._student
    teacher = cdl.load(finished / RUNS / "teacher-vit_micro-q-vit_nano/seed0")
    student.model.teacher_query = teacher._student.model.learner.backbone
    monkeypatch.setattr(room.TrainedStudent, "open", lambda *_: student)
    with pytest.raises(CdlError, match="distillers.cdl_prompt: .*needs the teacher's ViT"):
        export(finished / MAPPED, tmp_path / "student")
    assert not (tmp_path / "student").exists()


def test_without_the_test_images_nothing_is_written(copied, tmp_path):
    shutil.rmtree(copied / "results" / "data")
    with pytest.raises(CdlError, match="test images are not .*export with --no-check"):
        export(copied / KD, tmp_path / "student")
    assert not (tmp_path / "student").exists()


def test_damage_to_an_exported_folder_is_reported_in_a_sentence(deployed, tmp_path):
    folder = tmp_path / "student"
    shutil.copytree(deployed / "fp32", folder)
    with pytest.raises(CdlError, match="images: have 2 sizes; expected one size per batch"):
        cdl.load(folder)._student.preprocess([np.zeros((s, 8, 3), np.uint8) for s in (8, 9)])
    with pytest.raises(CdlError, match="exported after one task; load its run"):
        cdl.load(folder, task=0)
    (folder / "manifest.json").unlink()  # which would refuse all of these
    classes = (folder / "classes.txt").read_text()
    (folder / "classes.txt").write_text(classes + "more\n")
    with pytest.raises(CdlError, match="contains 11 classes, model.onnx has 10; export the"):
        cdl.load(folder)
    (folder / "classes.txt").write_text(classes)
    model = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(model[: len(model) // 2])
    with pytest.raises(CdlError, match="model.onnx: cannot be read"):
        cdl.load(folder)
    (folder / "classes.txt").unlink()
    with pytest.raises(CdlError, match="is not an exported student"):
        cdl.load(folder)


@pytest.mark.parametrize("exists", [False, True])
def test_a_killed_or_failed_export_leaves_no_folder_that_looks_whole(
    finished, tmp_path, monkeypatch, exists
):
    folder = tmp_path / "student"
    if exists:
        folder.mkdir()

    def write(student, made, images, executorch):
        write_student(made / "inside")
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        raise KeyboardInterrupt

    parent = os.getpid()
    monkeypatch.setattr(room, "_write_student", write)
    if (child := os.fork()) == 0:
        export(finished / KD, folder, check=False)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    with pytest.raises(CdlError, match="is not a (folder|finished run)"):
        cdl.load(folder)
    with pytest.raises(KeyboardInterrupt):
        export(finished / KD, folder, check=False)
    assert list(tmp_path.rglob("*")) == [folder] * exists  # also nothing of the killed one


def test_the_current_folder_is_not_replaced(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CdlError, match=r"\.: already exists; choose another folder"):
        export(finished / KD, Path("."))


SHOWN = [
    "a|b",
    "<b>x</b>",
    "x_y",
    "c\\",
    "[cat](https://x.example)",
    "![p](https://x.example/p.png)",
]
SHOWN += [
    "https://x.example",
    "www.x.example",
    "me@x.example",
    "_a_",
    "*a*",
    "`a`",
    "~~a~~",
    "&lt;",
]
SHOWN += ["été", "猫, 犬", "tabby cat", "<https://x.example>", "[1]: https://x.example"]


def test_names_of_classes_are_shown_in_the_card_as_they_are():
    for name in SHOWN:
        page = MarkdownIt().enable("table").render(f"| a |\n|-|\n| {escaped(name)} |\n")
        cell = re.search("<td>(.*)</td>", page)[1]
        assert "<" not in cell and html.unescape(cell) == name
        # GitHub and the Hub also make links of plain addresses
        assert not re.search(r"://|www\.|[^\\]@", escaped(name))
    assert escaped("tabby cat, x_y") == "tabby cat, x_y"


def test_a_class_that_no_list_can_contain_is_refused_before_anything_is_written(
    finished, tmp_path, monkeypatch
):
    student = replace(cdl.load(finished / KD)._student, classes=("a", "b\nc"))
    monkeypatch.setattr(room.TrainedStudent, "open", lambda *_: student)
    with pytest.raises(CdlError, match=r"invalid class name 'b\\nc'"):
        export(finished / KD, tmp_path / "student")
    assert not (tmp_path / "student").exists()
