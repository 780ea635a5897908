"""Studies whose teacher is a classifier of each kind, from its folder or file to the tables."""

from pathlib import Path

import pandas as pd
import pytest
import yaml
from classifiers import MAKERS
from runs import planned, run

from cdl.deployment.card import card
from cdl.deployment.trained import TrainedStudent
from cdl.runtime.artifacts import read_json


def study(given):
    pair = {"teacher": {"classifier": given}, "student": "vit_nano"}
    grid = {"methods": ["head_only"], "pairs": [pair], "distillers": ["none", "kd"]}
    few = {"images_per_class": 4, "test_images_per_class": 2}
    return yaml.safe_dump({"name": "own", "datasets": {"digits": few}, "grid": grid})


AT_NIGHT = ("hf", "student")  # other models in a folder; `test_classified.py` has all kinds
KINDS = [
    pytest.param(kind, marks=[pytest.mark.nightly] if kind in AT_NIGHT else []) for kind in MAKERS
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_learns_from_a_classifier(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    block, has_card = MAKERS[kind](Path(f"toy.{kind}")), kind in ("timm", "hf")
    if has_card:
        Path(f"toy.{kind}", "README.md").write_text("---\nlicense: mit\n---\n# A classifier\n")
    given = study(block)
    jobs = planned(tmp_path, overlay=given)
    assert jobs["classify"] == 1 and jobs["answers"] == jobs["distil"] == 2
    run(tmp_path, overlay=given)
    table = pd.read_csv("results/own/tables/results.csv", keep_default_na=False)
    assert set(table["distiller"]) == {"none", "kd"} and "teacher" not in set(table["role"])
    page = Path("results/own/index.html").read_text()
    assert "(a classifier)" in page
    (record,) = Path("results/queries").glob("classifier_*/answers.json")
    (first, *_) = Path("results/own").glob("digits/head_only/kd-*/seed0/task0/learner.json")
    assert read_json(first)["inputs"]["teacher"] == read_json(record)["classifier"]
    assert planned(tmp_path, overlay=given) == {}
    run_folder = next(Path("results/own/digits/head_only").glob("kd-*/seed0"))
    shown = card(TrainedStudent.open(run_folder), [])
    licence = "mit" if has_card else "not recorded; clarify it"
    name = Path(next(iter(block.values()))).name.replace(".", r"\.")
    assert f"\n- classifier that taught, {name}: {licence}" in shown
    assert f": {read_json(record)['classifier']}\n" in shown
