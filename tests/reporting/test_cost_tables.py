"""What learners and their teachers cost, from records, logs and benchmarks."""

import numpy as np
import pandas as pd
import pytest
from study import make_study

from cdl.reporting.costs import markdown
from cdl.reporting.runs import COST, cost_of, with_teachers


def task(images, operations, forward=0.0, answers=0):
    return {
        "images": images,
        "operations": operations * 1e12,
        "forward": forward * 1e12,
        "answers": answers,
    }


def test_a_teachers_cost_is_spread_over_its_students(tmp_path):
    results, _, cost, _ = make_study(tmp_path, methods=["l2p"], seeds=[0], tasks=2)
    own = {"energy_wh": [8.0, 1.0, 2.0, 3.0], "tflops": [10.0, 1.0, 2.0, 4.0]}
    folders = [f"{tmp_path}/l2p/{name}/seed0" for name in ("big", "none", "kd", "dkd")]
    assert results["run"].tolist() == folders
    teacher = [task(5, 5, forward=0.1), task(5, 5, forward=0.1)]
    taught = [task(5, 1, answers=5), task(5, 1, answers=5)]
    work = dict(zip(folders, (teacher, [task(5, 1)] * 2, taught, taught), strict=True))
    found = with_teachers(cost.assign(**own), results, work)
    # 10 of its own and 0.1 for each of ten answers, which both students read
    assert found["teacher_tflops"].tolist() == pytest.approx([np.nan, np.nan, 11, 11], nan_ok=True)
    assert found["students"].tolist() == pytest.approx([np.nan, np.nan, 2, 2], nan_ok=True)
    assert found["total_tflops"].tolist() == [10, 1, 7.5, 9.5]
    assert found["total_energy_wh"].tolist() == [8, 1, 6, 7]
    text = markdown(results[["backbone", "distiller"]], found, results["final_average_accuracy"])
    table = [[part.strip() for part in line.split("|")[1:-1]] for line in text.splitlines()[:6]]
    told = dict(zip(table[0], table[4], strict=True))
    assert (told["distiller"], told["T, its teacher"], told["students of it"]) == ("kd", "11", "2")
    assert (told["T, with its share"], told["Wh, with its share"]) == ("7.5", "6")
    assert dict(zip(table[0], table[3], strict=True))["T, its teacher"] == "-"
    unknown = markdown(results[["backbone", "distiller"]], cost, results["final_average_accuracy"])
    assert "T, all tasks" not in unknown and "No machine told the energy" in unknown
    per_wh = results["final_average_accuracy"] / found["total_energy_wh"]
    assert found["accuracy_per_wh"].tolist() == pytest.approx(per_wh.tolist())


def test_what_is_not_known_of_one_task_is_not_known_of_the_run(tmp_path):
    results, _, cost, _ = make_study(tmp_path, methods=["l2p"], seeds=[0], tasks=2)
    assert set(COST) <= set(cost.columns)
    unknown = ["tflops", "energy_wh", "gpu_seconds", "total_tflops", "accuracy_per_wh"]
    assert cost[unknown].isna().all(axis=None)  # records and logs are empty there
    assert (cost["training_seconds"] > 0).all()
    files = [tmp_path / "l2p" / "kd" / "seed0" / f"task{t}" / "cost.tsv" for t in range(2)]
    said = 'INFO cdl.runtime.benchmarks: measured {"gpu_seconds": 2.5, "gpu_wh": 0.5}\n'
    for file in files:
        file.with_suffix(".log").write_text(said)
    whole = cost_of([str(file) for file in files], [task(5, 3), task(7, 1)])
    assert (whole["gpu_seconds"], whole["energy_wh"], whole["images"]) == (5.0, 1.0, 12)
    assert (whole["tflops"], whole["task_tflops"]) == (4.0, 2.0)
    files[1].with_suffix(".log").unlink()
    assert pd.isna(cost_of([str(file) for file in files])["energy_wh"])
