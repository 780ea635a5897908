"""A finished run exported: the folder says what was evaluated, and what cannot be is refused."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from test_student import KD, RUNS, pictures

import cdl
from cdl.deployment import export as room
from cdl.deployment.export import Parity, export
from cdl.runtime.artifacts import read_json, write_json
from cdl.runtime.errors import CdlError

ROOT = Path(__file__).parents[2]
MAPPED = f"{RUNS}/cdl_prompt-vit_nano-from-vit_micro-q-vit_nano/seed0"


@pytest.mark.parametrize("run", [KD, MAPPED])
def test_the_folder_says_what_was_evaluated(finished, tmp_path, run):
    answer = export(finished / run, tmp_path / "student")
    assert answer.parity.images == 80 and answer.parity.holds
    assert answer.parity.unlike_torch == 0 and answer.parity.largest < 1e-4
    student = cdl.load(tmp_path / "student")
    images, frame = pictures(finished, run)
    assert student.predict(images) == frame["predicted"].tolist()
    assert student.classes == cdl.load(finished / run).classes
    names = {path.name for path in (tmp_path / "student").iterdir()}
    assert names == {"model.onnx", "classes.txt", "preprocessing.json", "card.md"}
    card = (tmp_path / "student" / "card.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header["pipeline_tag"] == "image-classification"
    matrix = read_json(finished / run / "results.json")["matrix"]
    for task in (0, 1):
        assert f"| {matrix[1][task]:.2f} |" in card
    with pytest.raises(CdlError, match="student: exists and is kept"):
        export(finished / run, tmp_path / "student")


def test_an_earlier_task_is_compared_with_torch(finished, tmp_path):
    answer = export(finished / KD, tmp_path / "student", task=0)
    assert answer.parity == Parity(48, 0, None, True, answer.parity.largest)
    assert cdl.load(tmp_path / "student").classes == cdl.load(finished / KD, task=0).classes


def test_the_command_fails_where_the_graph_says_something_else(copied, tmp_path):
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
    command = [sys.executable, "-m", "cdl", "export", run, "-o", tmp_path / "student", "--json"]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert answer.returncode == 1, answer.stderr
    assert json.loads(answer.stdout)["parity"]["unlike_evaluation"] == 1
    assert "does not say what was evaluated" in answer.stderr.splitlines()[-1]
    command = [sys.executable, "-m", "cdl", "export", run, "-o", tmp_path / "other", "--no-check"]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert answer.returncode == 0 and "not compared" in answer.stdout


def test_eight_bits_are_a_third_of_the_size_and_cost_what_is_said(finished, tmp_path):
    answer = export(finished / KD, tmp_path / "student", int8=True)
    before, after = answer.int8.bytes
    assert after == answer.bytes < before / 3 and answer.parity.holds
    images, frame = pictures(finished, KD)
    found = cdl.load(tmp_path / "student").predict(images)
    for names, accuracy in zip((frame["predicted"], found), answer.int8.accuracy, strict=True):
        assert 100 * (frame["class"] == names).mean() == pytest.approx(accuracy)
    assert abs(answer.int8.accuracy[0] - answer.int8.accuracy[1]) < 5
    assert answer.int8.text() in (tmp_path / "student" / "card.md").read_text()
    assert len(list((tmp_path / "student").iterdir())) == 4


def test_a_student_that_reads_its_teachers_vit_is_refused_by_name(finished, tmp_path, monkeypatch):
    student = cdl.load(finished / MAPPED)
    student.model.foreign = cdl.load(
        finished / RUNS / "teacher-vit_micro-q-vit_nano/seed0"
    ).model.learner.backbone
    monkeypatch.setattr(room.TrainedStudent, "open", lambda *_: student)
    with pytest.raises(CdlError, match="distillers.cdl_prompt: .*reads? the teacher's ViT"):
        export(finished / MAPPED, tmp_path / "student")
    assert not (tmp_path / "student").exists()


def test_without_the_test_images_nothing_is_written(copied, tmp_path):
    shutil.rmtree(copied / "results" / "data")
    with pytest.raises(CdlError, match="test images .*export with --no-check"):
        export(copied / KD, tmp_path / "student")
    assert not (tmp_path / "student").exists()


def test_damage_to_an_exported_folder_is_said_in_a_sentence(finished, tmp_path):
    folder = tmp_path / "student"
    export(finished / KD, folder, check=False)
    with pytest.raises(CdlError, match="images: those of a batch have one size, these 2"):
        cdl.load(folder).preprocess([np.zeros((s, 8, 3), np.uint8) for s in (8, 9)])
    with pytest.raises(CdlError, match="exported after one task; load its run"):
        cdl.load(folder, task=0)
    classes = (folder / "classes.txt").read_text()
    (folder / "classes.txt").write_text(classes + "more\n")
    with pytest.raises(CdlError, match="names 11 classes, but model.onnx knows 10; export it"):
        cdl.load(folder)
    (folder / "classes.txt").write_text(classes)
    model = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(model[: len(model) // 2])
    with pytest.raises(CdlError, match="model.onnx cannot be read"):
        cdl.load(folder)
    (folder / "classes.txt").unlink()
    with pytest.raises(CdlError, match="is no exported student"):
        cdl.load(folder)
