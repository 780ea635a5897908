"""Studies whose teacher is a classifier of each kind, from its folder or file to the tables."""

from pathlib import Path

import pandas as pd
import pytest
import yaml
from classifiers import MAKERS
from runs import planned, run

from cdl.runtime.artifacts import read_json


def study(given):
    pair = {"teacher": {"classifier": given}, "student": "vit_nano"}
    grid = {"methods": ["head_only"], "pairs": [pair], "distillers": ["none", "kd"]}
    few = {"images_per_class": 4, "test_images_per_class": 2}
    return yaml.safe_dump({"name": "own", "datasets": {"digits": few}, "grid": grid})


@pytest.mark.parametrize("kind", MAKERS)
def test_a_student_learns_from_a_classifier(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    given = study(MAKERS[kind](Path(f"toy.{kind}")))
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
