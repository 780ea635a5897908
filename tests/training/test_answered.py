"""Students of a file of answers: its targets, distillers, labels of heads in closed form."""

import csv
import json
from pathlib import Path

import pytest
import torch

from cdl.data.packed import Packed
from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError

PAIR = {"teacher": {"answers": "right.csv"}, "student": "vit_nano"}
FEW = {"datasets": {"digits": {"labels": {"per_class": 2}}}}


@pytest.fixture
def answered(lab, inputs, tmp_path, monkeypatch):
    """Return a lab whose teacher is right with the probability 0.91 for every item."""
    monkeypatch.chdir(tmp_path)

    def made(changes, answers=0.91, left_out=()):
        with open("right.csv", "w", newline="") as file:
            writer = csv.writer(file)
            classes = Packed(inputs / "data", "train").classes
            writer.writerow(["name", *classes])
            for split in ("train", "test"):
                packed = Packed(inputs / "data", split)
                for name, label in zip(packed.names, packed.labels.tolist(), strict=True):
                    values = [(1 - answers) / (len(classes) - 1)] * len(classes)
                    values[label] = answers
                    if name not in left_out:
                        writer.writerow([name, *values])
        return lab({**changes, "grid": {"pairs": [PAIR], **changes.get("grid", {})}})

    return made


@pytest.mark.parametrize("columns", ["task", "seen"])
def test_targets_are_the_answers_of_the_task_in_the_order_of_its_classes(answered, columns):
    kd = {"block": "kd", "variant": "own", "soft_columns": columns}
    here = answered({"grid": {"distillers": [kd]}})
    run = here.student("kd")
    path = here.task_inputs(run, 1)["targets"]
    ((_, values),), about = (found := artifacts.load(path))[0].items(), found[1]
    assert values.shape[0] == 1 and values.shape[2] == {"task": 4, "seen": 10}[columns]
    sums = values.exp().sum(2)
    expected = torch.full_like(sums, 0.91 + 3 * 0.01 if columns == "task" else 1.0)
    assert torch.allclose(sums, expected, atol=1e-5)
    right = about["test"]
    assert right["teacher_answers"] == right["teacher_answers_right"] > 0 and right["classes"] == 10
    for task in range(2):
        here.learn(run, task)
    made = json.loads(Path(here.checkpoint(run, 1)).with_suffix(".json").read_text())
    assert made["inputs"]["teacher"] == here.spec(run).answers.sha256


def test_answers_label_the_images_of_a_ridge(answered):
    taught = {"block": "none", "variant": "taught", "methods": {"ranpac": {"labels": "teacher"}}}
    here = answered(
        {**FEW, "methods": {"ranpac": {"projection": 32}}}
        | {"grid": {"methods": ["ranpac"], "distillers": [taught]}}
    )
    run = here.student("none")
    here.learn(run, 0)
    made = json.loads(Path(here.checkpoint(run, 0)).with_suffix(".json").read_text())
    assert made["seen"]["pseudo_labels"] == made["seen"]["pseudo_labels_right"] > 0


def test_answers_label_the_images_of_aligned_heads(answered):
    taught = {"block": "none", "variant": "taught"}
    taught["alignment"] = {"preset": "slca", "labels": "teacher"}
    here = answered({**FEW, "grid": {"distillers": [taught]}})
    run = here.student("none")
    here.learn(run, 0)
    made = json.loads(Path(here.checkpoint(run, 0)).with_suffix(".json").read_text())
    assert made["seen"]["pseudo_labels"] == made["seen"]["pseudo_labels_right"] > 0


def test_a_missing_item_and_a_changed_file_are_refused(answered, inputs):
    names = Packed(inputs / "data", "train").names[:].tolist()
    here = answered({"grid": {"distillers": ["kd"]}}, left_out=names)
    cache = here.planned.learning(here.student("kd"), 0)["targets"]
    with pytest.raises(CdlError, match="has no answer for"):
        here.cache(cache)
    Path("right.csv").write_text(Path("right.csv").read_text() + "\n")
    with pytest.raises(CdlError, match="has changed since this run was planned"):
        here.cache(cache)


@pytest.mark.parametrize("distiller", ["kd", "dkd", "dist"])
def test_a_student_learns_without_any_label(answered, distiller):
    alone = {"block": distiller, "variant": "alone", "alpha": 1.0}
    here = answered(
        {"datasets": {"digits": {"labels": {"per_class": 0}}}, "grid": {"distillers": [alone]}}
    )
    run = here.student(distiller)
    here.learn(run, 0)
    made = json.loads(Path(here.checkpoint(run, 0)).with_suffix(".json").read_text())
    assert made["seen"]["labelled"] == 0 < made["seen"]["unlabelled"]
    assert made["seen"]["teacher_answers"] == made["seen"]["teacher_answers_right"] > 0


@pytest.mark.parametrize("method", ["ranpac", "simple_cil"])
def test_a_head_in_closed_form_learns_without_any_label(answered, method):
    taught = {"block": "none", "variant": "taught", "methods": {method: {"labels": "teacher"}}}
    here = answered(
        {"datasets": {"digits": {"labels": {"per_class": 0}}}}
        | {"methods": {"ranpac": {"projection": 32}}}
        | {"grid": {"methods": [method], "distillers": [taught]}}
    )
    run = here.student("none")
    here.learn(run, 0)
    made = json.loads(Path(here.checkpoint(run, 0)).with_suffix(".json").read_text())
    assert made["seen"]["pseudo_labels"] == made["seen"]["pseudo_labels_right"] > 0


@pytest.mark.parametrize("way", ["labels", "kd"])
def test_an_unlabelled_item_without_an_answer_is_left_out_of_a_ridge(answered, inputs, way):
    packed = Packed(inputs / "data", "train")
    left_out = packed.names[:].tolist()[::7]
    pair = {**PAIR, "teacher": {**PAIR["teacher"], "missing": "unlabelled"}}
    taught = {"block": "none", "variant": "taught", "methods": {"ranpac": {"labels": "teacher"}}}
    taught = taught if way == "labels" else "kd"
    here = answered(
        {"datasets": {"digits": {"labels": {"per_class": 0}}}}
        | {"methods": {"ranpac": {"projection": 32}}}
        | {"grid": {"pairs": [pair], "methods": ["ranpac"], "distillers": [taught]}},
        left_out=left_out,
    )
    run = here.student("none" if way == "labels" else "kd")
    path = here.task_inputs(run, 0)["targets"]
    here.learn(run, 0)
    (values,), state = (
        artifacts.load(path)[0].values(),
        artifacts.load(here.checkpoint(run, 0))[0],
    )
    n_answered = int(values[0].isfinite().all(1).sum())
    assert 0 < n_answered < len(values[0])
    (counts,) = (tensor for name, tensor in state.items() if name.endswith("counts"))
    assert float(counts.sum()) == pytest.approx(n_answered, rel=1e-5)
