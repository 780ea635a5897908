"""Costs of learners and their teachers, from records, measurements and benchmarks."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from study import make_study

from cdl.layout import measured_of
from cdl.reporting.costs import COST, cost_of, count_unmeasured, markdown, with_teachers
from cdl.runtime.artifacts import write_json


def job(task, images, operations, forward=0.0, answers=0):
    """Work in the record of a job on a task."""
    return {
        "task": task,
        "images": images,
        "operations": operations * 1e12,
        "forward": forward * 1e12,
        "answers": answers,
    }


def test_a_teachers_cost_is_spread_over_its_students(tmp_path):
    results, _, cost, _ = make_study(tmp_path, methods=["l2p"], seeds=[0], tasks=2)
    own = {"tflops": [10.0, 1.0, 2.0, 4.0]}
    folders = [f"{tmp_path}/l2p/{name}/seed0" for name in ("big", "none", "kd", "dkd")]
    assert results["run"].tolist() == folders
    teacher = [job(t, 5, 5, forward=0.1) for t in (0, 1)]
    taught = [job(t, 5, 1, answers=5) for t in (0, 1)]
    alone = [job(t, 5, 1) for t in (0, 1)]
    work = dict(zip(folders, (teacher, alone, taught, taught), strict=True))
    found = with_teachers(cost.assign(**own), results, work)
    # 10 for its tasks and 0.1 for each of ten targets, which both students read
    assert found["teacher_tflops"].tolist() == pytest.approx([np.nan, np.nan, 11, 11], nan_ok=True)
    assert found["students"].tolist() == pytest.approx([np.nan, np.nan, 2, 2], nan_ok=True)
    assert found["total_tflops"].tolist() == [10, 1, 7.5, 9.5]
    text = markdown(results, found)
    table = [[part.strip() for part in line.split("|")[1:-1]] for line in text.splitlines()[:6]]
    row = dict(zip(table[0], table[4], strict=True))
    assert (row["distiller"], row["T, its teacher"]) == ("kd", "11")
    assert row["students of the teacher"] == "2"
    assert row["T, with share of teacher"] == "7.5"
    assert dict(zip(table[0], table[3], strict=True))["T, its teacher"] == "-"
    unknown = markdown(results, cost)
    assert "T, all tasks" not in unknown
    per_tflop = results["final_average_accuracy"] / found["total_tflops"]
    assert found["accuracy_per_tflop"].tolist() == pytest.approx(per_tflop.tolist())


def test_a_cost_unknown_for_one_task_is_unknown_for_the_run(tmp_path):
    results, _, cost, _ = make_study(tmp_path, methods=["l2p"], seeds=[0], tasks=2)
    assert set(COST) <= set(cost.columns)
    unknown = ["tflops", "gpu_seconds", "total_tflops", "accuracy_per_tflop"]
    assert cost[unknown].isna().all(axis=None)  # records and logs are empty there
    assert (cost["training_seconds"] > 0).all()
    files = [tmp_path / "l2p" / "kd" / "seed0" / f"task{t}" / "cost.tsv" for t in range(2)]
    assert count_unmeasured([[str(file) for file in files]]) == 2
    for file in files:
        own = {"gpu_seconds": 2.5, "seconds": 7, "processor_seconds": 3}
        write_json(measured_of(str(file)), own | {"memory_mb": 9})
        file.with_suffix(".log").write_text('measured {"gpu_seconds": 9}\n')
    assert count_unmeasured([[str(file) for file in files]]) == 0
    whole = cost_of([str(file) for file in files], [job(0, 5, 3), job(1, 7, 1)])
    assert (whole["gpu_seconds"], whole["images"]) == (5.0, 12)
    shown = ("training_seconds", "processor_seconds", "peak_memory_mb")
    assert [whole[name] for name in shown] == [14, 6, 9]  # and not those of the benchmark files
    assert (whole["tflops"], whole["task_tflops"]) == (4.0, 2.0)
    aligned = cost_of([str(file) for file in files], [job(0, 5, 3), job(0, 0, 1)], n_tasks=1)
    assert (aligned["images"], aligned["tflops"], aligned["task_tflops"]) == (5, 4.0, 4.0)
    Path(measured_of(str(files[1]))).unlink()
    assert pd.isna(cost_of([str(file) for file in files])["gpu_seconds"])
    assert count_unmeasured([[str(file) for file in files]]) == 1
    text = markdown(results, cost, 1)
    assert "1 jobs have no measurements of their own (they were deleted)" in text


def test_a_target_that_only_alignment_reads_counts_for_its_task(tmp_path):
    results, _, cost, _ = make_study(tmp_path, methods=["l2p"], seeds=[0], tasks=2)
    folders = results["run"].tolist()
    own = {"tflops": [10.0, 1.0, 2.0, 4.0]}
    teacher = [job(t, 5, 4, forward) for t, forward in ((0, 0.1), (0, 0.1), (1, 0.2), (1, 0.2))]
    taught = [job(0, 5, 1), job(0, 0, 1, answers=5), job(1, 5, 1), job(1, 0, 1, answers=10)]
    work = dict(zip(folders, (teacher, [], taught, taught), strict=True))
    found = with_teachers(cost.assign(**own), results, work)
    assert found["teacher_tflops"].tolist()[2:] == pytest.approx([12.5, 12.5])
