"""Runs are found by abbreviations, and results in other folders are named."""

from pathlib import Path

import pandas as pd
import pytest
from lab import make_grid

import cdl
from cdl.cli import student
from cdl.cli.results import verify
from cdl.inventory.naming import find_run, nothing_here, results_nearby
from cdl.inventory.status import report
from cdl.inventory.trace import trace
from cdl.layout import ResultsFolder
from cdl.reporting.columns import CELL
from cdl.runtime.artifacts import write_json
from cdl.runtime.errors import CdlError

RUNS = [
    "results/s/digits/l2p/kd-vit_nano-from-vit_micro-q-vit_nano/seed0",
    "results/s/digits/l2p/kd_prompt-vit_nano-from-vit_micro-q-vit_nano/seed0",
    "results/s/digits/l2p/student-vit_nano-q-vit_nano/seed0",
    "results/s/digits/l2p/student-vit_nano-q-vit_nano/seed1",
]


@pytest.fixture
def runs(tmp_path, monkeypatch):
    for run in RUNS:
        write_json(tmp_path / run / "results.json", {})
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "run"),
    [
        (RUNS[0], 0),
        ("kd", 0),
        ("kd_prompt", 1),
        ("kd_p", 1),
        ("digits/stu/seed1", 3),
        ("dig/kd", 0),
        ("student/1", 3),
        ("results/s/student/seed0", 2),
        ("results/s/digits/l2p/kd-vit_nano-from-vit_micro-q-vit_nano", 0),
    ],
)
def test_a_run_is_found_by_what_is_unique(runs, name, run):
    assert find_run(name) == Path(RUNS[run])


def test_a_name_that_is_not_unique_or_matches_nothing_lists_runs(runs):
    with pytest.raises(CdlError, match=f"is not unique; it can mean {RUNS[2]}, {RUNS[3]}$"):
        find_run("student")
    with pytest.raises(CdlError, match=f"is not a finished run; expected one of {RUNS[0]}"):
        find_run("nothing")
    with pytest.raises(CdlError, match=r"run \(did you mean 'digits/kd/seed0'\?\); expected"):
        find_run("digts/kdd/seed0")
    with pytest.raises(
        CdlError, match=f"results/s: is not a finished run: .*; runs below it: {RUNS[0]}"
    ):
        cdl.load("results/s")
    with pytest.raises(CdlError, match=f"results/s: is not a finished run, but contains {RUNS[0]}"):
        find_run("results/s")
    Path("photos").mkdir()
    assert find_run("photos") == Path("photos"), "the command itself says what it needs"


def test_results_in_another_folder_are_named(runs, tmp_path, monkeypatch):
    Path("results/s/tables").mkdir()
    Path("work").mkdir()
    monkeypatch.chdir("work")
    where = f"{tmp_path}/work contains no results of 's'; they are in {tmp_path}"
    assert nothing_here("s") == where
    assert nothing_here("t").endswith("contains no results of 't'; run `cdl run CONFIG` first")
    grid = make_grid({"name": "s"})
    assert report(grid, 1).notes[0] == where
    with pytest.raises(CdlError, match=f"no table; .*; results are in {tmp_path}$"):
        trace("digits", ResultsFolder(Path("results")))
    with pytest.raises(CdlError, match=f"kd: is not a finished run; {tmp_path}/work contains no"):
        find_run("kd")
    monkeypatch.chdir(tmp_path)
    assert [place.name for place in results_nearby("s")] == []


def test_verify_says_that_nothing_is_here(tmp_path):
    config = Path(__file__).parents[2] / "config" / "digits.yaml"
    with pytest.raises(CdlError, match=f"^{tmp_path} contains no results of 'digits'"):
        verify([config], tmp_path)


def test_a_configuration_means_its_best_student(runs, monkeypatch, capsys):
    rows = pd.DataFrame({name: [""] * 4 for name in CELL})
    rows["distiller"] = ["kd", "kd_prompt", "none", "none"]
    rows["role"], rows["run"] = "student", RUNS
    rows["final_average_accuracy"] = [50.0, 60.0, 90.0, 10.0]
    monkeypatch.setattr("cdl.reporting.tables.read", lambda *_: rows)
    config = str(Path(__file__).parents[2] / "config" / "digits.yaml")
    with pytest.raises(CdlError, match=f"{config}: has no table of finished runs; "):
        student._run_of(config)
    Path("results/digits/tables").mkdir(parents=True)
    Path("results/digits/tables/results.csv").touch()
    assert student._run_of(config) == Path(RUNS[1])
    best, left = capsys.readouterr().err.splitlines()
    assert best == f"best student of {config}: {RUNS[1]}"
    assert left.startswith("10 of 10 runs are not finished with the values of this file; ")
