"""A study whose teacher is a file of answers, from the list of items to the tables."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from runs import CONFIGS, planned, run, snakemake

from cdl.cli.app import main
from cdl.deployment.card import card
from cdl.deployment.trained import TrainedStudent
from cdl.runtime.artifacts import read_json

OWN = """
name: own
datasets: {digits: {images_per_class: 4, test_images_per_class: 2}}
grid:
  methods: [head_only]
  pairs: [{teacher: {answers: items.csv}, student: vit_nano}]
  distillers: [none, kd]
"""
CELL = "results/own/digits/head_only/kd-vit_nano-from-answers_items-q-vit_nano/seed0"


def test_a_student_learns_from_a_file_of_answers(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.yaml").write_text(OWN)
    words = ["cdl", "answers", *map(str, CONFIGS), "own.yaml", "-o", "items.csv"]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().out == "wrote items.csv: 1797 items\n"
    items = pd.read_csv("items.csv")
    names = [column for column in items if column not in ("name", "path")]
    values = np.random.default_rng(0).dirichlet(np.ones(len(names)), len(items))
    items[names] = values
    items.to_csv("items.csv", index=False)
    run(tmp_path, overlay=OWN)
    table = pd.read_csv("results/own/tables/results.csv", keep_default_na=False)
    assert set(table["distiller"]) == {"none", "kd"} and "teacher" not in set(table["role"])
    assert "answers_items (a file)" in (tmp_path / "results/own/index.html").read_text()
    line = "- answers of the teacher, from the file answers_items: not recorded; clarify it before"
    assert line in card(TrainedStudent.open(Path(CELL)), [])
    before = read_json(f"{CELL}/results.json")["checkpoints"]
    assert planned(tmp_path, overlay=OWN) == {}
    items[names] = values[::-1]
    items.to_csv("items.csv", index=False)
    again = planned(tmp_path, overlay=OWN)
    assert again["answers"] == again["distil"] == 2 and "train" not in again
    result = snakemake(tmp_path, "--cores", "2", f"{CELL}/results.json", overlay=OWN)
    assert result.returncode == 0, result.stderr[-2000:]
    assert read_json(f"{CELL}/results.json")["checkpoints"] != before
