"""The whole workflow at its smallest: runs, rests, and runs again exactly what an edit touches."""

import os
import shutil

import pandas as pd
import psutil
import pytest
from runs import ROOT, contents, planned, run, snakemake

TABLES = "results/tiny/tables"
ALL_TASKS = {"train": 4, "distil": 4, "evaluate": 4}
LATER_TEACHER = {"queries": 2, "teacher_targets": 2, "train": 2, "distil": 4, "evaluate": 3}


def test_it_runs_and_then_rests(finished):
    assert planned(finished) == {}
    results = pd.read_csv(finished / TABLES / "results.csv", keep_default_na=False)
    assert list(results.columns[:8]) == [
        "dataset",
        "method",
        "teacher",
        "backbone",
        "distiller",
        "variant",
        "seed",
        "n_tasks",
    ]
    assert results["role"].tolist() == ["teacher", "student", "student", "student"]
    assert results["distiller"].tolist() == ["none", "none", "kd", "cdl_prompt"]
    assert results["teacher"].tolist() == ["", "", "vit_micro", "vit_micro"]
    assert results["final_average_accuracy"].between(0, 100).all()
    for run_folder in results["run"]:
        predictions = pd.read_parquet(finished / run_folder / "predictions.parquet")
        assert len(predictions) == 80
        row = results[results["run"] == run_folder].iloc[0]
        assert abs(100 * predictions["correct"].mean() - row["last_accuracy"]) < 1e-4
    summary = pd.read_csv(finished / TABLES / "summary.csv")
    assert summary["gain_over_baseline_mean"].notna().tolist() == [False, False, True, True]
    assert "final average accuracy" in (finished / TABLES / "summary.md").read_text()
    cost = pd.read_csv(finished / TABLES / "cost.csv")
    assert (cost["training_seconds"] > 0).all()
    assert (cost["tflops"] > 0).all() and cost["students"].tolist()[2:] == [2, 2]
    assert (cost["total_tflops"][2:] > cost["tflops"][2:]).all()
    for figure in ("accuracy", "forgetting", "gain", "cost"):
        for kind in ("svg", "png"):
            path = finished / f"results/tiny/figures/{figure}_digits.{kind}"
            assert path.stat().st_size > 5000


@pytest.mark.parametrize(
    ("overlay", "expected"),
    [
        ("distillers: {kd: {alpha: 0.3}}", {"distil": 2, "evaluate": 1}),
        ("training: {teacher: {epochs: 2}}", LATER_TEACHER),
        ("training: {epochs: 2}", ALL_TASKS | {"queries": 2, "teacher_targets": 2}),
        ("datasets: {digits: {test_images_per_class: 9}}", {"test_queries": 1, "evaluate": 4}),
        ("distillers: {dkd: {alpha: 0.1}}", {}),
        ("protocol: {coda_growth: gram_schmidt}", ALL_TASKS | {"teacher_targets": 2}),
        ("compute: {targets: online}", ALL_TASKS),
        ("compute: {device: cpu, targets_max_gb: 3}", {}),
        ("fetch: {offline: true}", {}),
        ("distillers: {kd: {alpha: 0.50}}", {}),
        ("chain: 1", {}),
    ],
)
def test_an_edit_runs_what_depends_on_it(finished, overlay, expected):
    tables = {"collect": 1, "tabulate": 1, "plot": 1, "page": 1} if expected else {}
    assert planned(finished, overlay=overlay) == expected | tables


def test_figures_of_chosen_prompts_are_made_on_demand(copied):
    assert not [*copied.rglob("prompts*")]
    expected = {"prompts": 4, "plot_prompts": 1, "chosen_prompts": 1}
    assert planned(copied, "chosen_prompts") == expected
    run(copied, "chosen_prompts")
    found = {path.name for path in (copied / "results/tiny/figures").glob("prompts*")}
    assert found == {f"prompts_digits.{kind}" for kind in ("svg", "pdf", "png", "json", "log")}
    assert planned(copied) == {}


def test_a_new_distiller_trains_only_itself(finished):
    overlay = "grid: {distillers: [none, kd, cdl_prompt, kd_prompt]}"
    assert planned(finished, overlay=overlay) == {
        "distil": 2,
        "evaluate": 1,
        "collect": 1,
        "tabulate": 1,
        "plot": 1,
        "page": 1,
    }


def test_deploying_trains_nothing(finished):
    overlay = "deploy: {runs: ['digits/*/kd-*']}"
    assert planned(finished, overlay=overlay) == {
        "deploy": 2,  # the teacher comes along
        "measure": 1,
        "show_deployment": 1,
        "page": 1,
    }


def test_trials_learn_their_first_tasks_before_the_best_go_on(finished):
    overlay = (
        "{datasets: {digits: {validation: {per_class: 5}}}, grid: {distillers: [none, kd]}, "
        "tune: {trials: 2, first_tasks: 1, fields: {training.lr: {low: 0.001, high: 0.1}}}}"
    )
    jobs = planned(finished, "tuned", overlay=overlay)
    # of each distiller two trials of one task; the teacher's first task for those of kd
    expected = {"evaluate_trial": 4, "distil": 2, "train": 3, "halve": 1, "tuned": 1}
    assert expected.items() <= jobs.items() and "evaluate" not in jobs


def test_a_second_configuration_leaves_the_first_idle(finished):
    plan = planned(finished, overlay="name: second")
    assert plan["train"] == 4
    assert not plan.keys() & {"prepare_dataset", "fetch_backbone", "queries", "test_queries"}
    assert planned(finished) == {}


def test_a_deleted_intermediate_is_noticed(copied):
    student = copied / "results/tiny/digits/coda_prompt/student-vit_nano-q-vit_nano/seed0"
    (student / "task0" / "learner.safetensors").unlink()
    assert planned(copied)["train"] >= 1


@pytest.mark.parametrize("name", ["tables/curves.csv", "../backbones/*.json", "../data/*/m*.json"])
def test_other_deleted_files_are_noticed_too(copied, name):
    next((copied / "results" / "tiny").glob(name)).unlink()
    assert planned(copied)


def test_a_finished_run_leaves_no_process(finished):
    """The server of warm starts ends with Snakemake."""
    every = psutil.process_iter(["cmdline", "cwd"])  # None where one ends meanwhile
    assert [p for p in every if p.info["cwd"] == str(finished) and p.info["cmdline"]] == []


def test_a_touched_script_retrains_nothing(finished):
    script = ROOT / "workflow" / "scripts" / "train.py"
    times = script.stat()
    try:
        script.touch()
        assert planned(finished) == {}
    finally:
        os.utime(script, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_the_same_seed_twice_is_identical_and_a_warm_start_changes_nothing(finished, copied):
    """One task; that whole runs are is seen by the faults' and the cluster's tests."""
    student = "results/tiny/digits/coda_prompt/student-vit_nano-q-vit_nano/seed0"
    shutil.rmtree(copied / student / "task1")
    for name in ("results.json", "predictions.parquet"):
        (copied / student / name).unlink()
    run(copied, f"{student}/results.json", overlay="compute: {warm: false}")
    first, second = contents(finished), contents(copied)
    assert sum(name.startswith(student) for name in second) == 8
    assert [name for name in first if first[name] != second.get(name)] == []


def test_a_typo_is_one_sentence_before_any_work(tmp_path):
    result = snakemake(tmp_path, "-n", overlay="distillers: {kd: {alhpa: 0.3}}")
    assert result.returncode != 0
    assert "distillers.kd: unknown key 'alhpa'" in result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "results").exists()
