"""Results of an older version, completed from their predictions."""

from pathlib import Path

import pandas as pd
import pytest
from study import make_study

from cdl.layout import RunFiles
from cdl.reporting.columns import IDENTITY, METRICS
from cdl.reporting.runs import class_tables, complete, complete_all, tables_of
from cdl.runtime.artifacts import read_json, write_json
from cdl.runtime.errors import CdlError

NEW = ("task_incremental_accuracy", "calibration_error")


@pytest.fixture
def old(tmp_path):
    """Files of a run with two tasks of two classes, whose results lack the new metrics."""
    make_study(tmp_path, methods=("l2p",), seeds=(0,), tasks=2)
    files = RunFiles(str(tmp_path / "l2p" / "kd" / "seed0"))
    table = pd.read_parquet(files.predictions)
    table["class"] = table["task"].map({0: "a", 1: "c"})
    table["predicted"] = table["class"].where(table["correct"], "d")
    table["probability"] = 0.5
    table.to_parquet(files.predictions)
    run = read_json(files.results)
    run["learner"]["stream"] = {"tasks": 2}
    run["classes"] = list("abcd")
    write_json(files.results, run, files=[files.predictions])
    return files


def test_missing_metrics_are_computed_from_predictions(old):
    run = read_json(old.results)
    assert not set(NEW) & set(run["metrics"])
    made = complete(run, old)
    correct = made["metrics"]["final_average_accuracy"] / 100
    assert made["metrics"]["calibration_error"] == pytest.approx(100 * abs(correct - 0.5))
    assert made["metrics"]["task_incremental_accuracy"] is None
    assert made["per_class"]["b"] is None
    assert made["matrix"] == run["matrix"]
    row = dict.fromkeys(IDENTITY, "x")
    row |= {"labels": "all", "teacher_labels": "all"}
    row |= {"seed": 0, "n_tasks": 2, "protocol": {}, "run": "r", "trained_run": "r"}
    row |= {"none_run": "", "teacher_run": ""}
    cost = str(Path(old.task(0).learner).with_name("cost.tsv"))
    results, *_ = tables_of([row], [made], [[cost]])
    assert set(METRICS) <= set(results.columns)
    classes, confusion = class_tables([row], [made])
    assert list(classes["class"]) == list("abcd")
    assert confusion["images"].sum() == sum(run["test_images"])


def test_complete_results_are_unchanged(old):
    run = read_json(old.results) | {"per_class": {"a": 1.0}}
    assert complete(run, old) == run


def test_predictions_of_another_run_are_refused(old):
    run = read_json(old.results)
    pd.read_parquet(old.predictions).tail(9).to_parquet(old.predictions)
    with pytest.raises(CdlError, match="predictions"):
        complete(run, old)


def test_agreement_needs_finished_runs(tmp_path):
    results, *_ = make_study(tmp_path, methods=("l2p",), seeds=(0,), tasks=2)
    rows, runs = results.to_dict("records"), []
    for row in rows:
        files = RunFiles(row["run"])
        table = pd.read_parquet(files.predictions)
        table.assign(predicted=table["correct"].map(str)).to_parquet(files.predictions)
        runs.append(read_json(files.results) | {"per_class": {}})
        write_json(files.results, runs[-1], files=[files.predictions])

    def names(runs):
        found = complete_all(rows, runs, RunFiles)
        return [run and {n for n in run["metrics"] if n in both} for run in found]

    both = {"teacher_agreement", "none_teacher_agreement"}
    teacher, none, *distilled = runs
    assert names(runs) == [set(), set(), both, both]
    assert names([teacher, None, *distilled]) == [set(), None, *[{"teacher_agreement"}] * 2]
    assert names([None, none, *distilled]) == [None, set(), set(), set()]
