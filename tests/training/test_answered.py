"""Students of a file of answers: its targets, distillers, labels of heads in closed form."""

import csv
import json
from pathlib import Path

import pytest
import torch

from cdl.data.packed import Packed
from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError
from cdl.study.inputs import learning

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
    path = here.targets(learning(here.grid, run), 1)
    ((_, values),), about = (found := artifacts.load(path))[0].items(), found[1]
    assert values.shape[0] == 1 and values.shape[2] == {"task": 4, "seen": 10}[columns]
    sums = values.exp().sum(2)
    expected = torch.full_like(sums, 0.91 + 3 * 0.01 if columns == "task" else 1.0)
    assert torch.allclose(sums, expected, atol=1e-5)
    assert about["test"]["accuracy"] == 100.0 and about["test"]["classes"] == 10
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
    need = learning(here.grid, here.student("kd"))
    with pytest.raises(CdlError, match="has no answer for"):
        here.targets(need, 0)
    Path("right.csv").write_text(Path("right.csv").read_text() + "\n")
    with pytest.raises(CdlError, match="has changed since this run was planned"):
        here.targets(need, 0)
