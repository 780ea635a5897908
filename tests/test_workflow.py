"""The whole workflow at its smallest: runs, rests, and runs again exactly what an edit touches."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parent.parent
CONFIGS = [ROOT / "config" / "default.yaml", ROOT / "config" / "test" / "tiny.yaml"]
TABLES = "results/tiny/tables"
ALL_TASKS = {"train": 4, "distil": 4, "evaluate": 4}
LATER_TEACHER = {"queries": 2, "teacher_targets": 2, "train": 2, "distil": 4, "evaluate": 3}


def snakemake(folder, *arguments, overlay=None):
    configs = [str(path) for path in CONFIGS]
    if overlay is not None:
        path = folder / f"overlay{abs(hash(overlay))}.yaml"
        path.write_text(overlay)
        configs.append(str(path))
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile"]
    command += ["--directory", folder, "--configfile", *configs, *arguments]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def run(folder, *arguments, **options):
    result = snakemake(folder, "--cores", "2", *arguments, **options)
    assert result.returncode == 0, result.stderr[-4000:]
    return result


def planned(folder, **options):
    """The jobs that a dry run lists, by rule."""
    result = snakemake(folder, "-n", "--quiet", "host", "rules", "reason", **options)
    assert result.returncode == 0, result.stdout + result.stderr
    if "Job stats" not in result.stdout:
        return {}
    table = result.stdout.split("Job stats", 1)[1].split("\n\n")[0]
    jobs = dict(re.findall(r"^(\w+)\s+(\d+)$", table, re.MULTILINE))
    return {rule: int(n) for rule, n in jobs.items() if rule not in ("all", "total")}


def contents(folder):
    """Hashes of everything that must be reproducible: all but logs, times and Snakemake's own."""
    kept = {".safetensors", ".json", ".csv", ".parquet", ".md", ".svg", ".png", ".pixels"}
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((folder / "results").rglob("*"))
        if path.suffix in kept and path.name != "cost.csv"
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workflow")
    run(folder)
    return folder


def test_it_runs_and_then_rests(finished):
    assert planned(finished) == {}
    results = pd.read_csv(finished / TABLES / "results.csv", keep_default_na=False)
    assert list(results.columns[:8]) == [
        "dataset",
        "method",
        "teacher",
        "student",
        "kd",
        "variant",
        "seed",
        "n_tasks",
    ]
    assert results["role"].tolist() == ["teacher", "student", "student", "student"]
    assert results["kd"].tolist() == ["none", "none", "kd", "cdl_prompt"]
    assert results["teacher"].tolist() == ["", "", "vit_micro", "vit_micro"]
    assert results["final_average_accuracy"].between(0, 100).all()
    for run_folder in results["run"]:
        predictions = pd.read_parquet(finished / run_folder / "predictions.parquet")
        assert len(predictions) == 80
        row = results[results["run"] == run_folder].iloc[0]
        assert abs(100 * predictions["correct"].mean() - row["last_accuracy"]) < 1e-4
    summary = pd.read_csv(finished / TABLES / "summary.csv")
    assert summary["gain_over_none_mean"].notna().tolist() == [False, False, True, True]
    assert "final average accuracy" in (finished / TABLES / "summary.md").read_text()
    cost = pd.read_csv(finished / TABLES / "cost.csv")
    assert (cost["training_seconds"] > 0).all()
    for kind in ("svg", "png"):
        assert (finished / f"results/tiny/figures/accuracy_digits.{kind}").stat().st_size > 5000


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
        ("distillers: {kd: {alpha: 0.50}}", {}),
    ],
)
def test_an_edit_runs_what_depends_on_it(finished, overlay, expected):
    tables = {"collect": 1, "tabulate": 1, "plot": 1} if expected else {}
    assert planned(finished, overlay=overlay) == expected | tables


def test_a_new_distiller_trains_only_itself(finished):
    overlay = "grid: {distillers: [none, kd, cdl_prompt, kd_prompt]}"
    assert planned(finished, overlay=overlay) == {
        "distil": 2,
        "evaluate": 1,
        "collect": 1,
        "tabulate": 1,
        "plot": 1,
    }


def test_a_second_configuration_leaves_the_first_idle(finished):
    plan = planned(finished, overlay="name: second")
    assert plan["train"] == 4
    assert not plan.keys() & {"prepare_dataset", "fetch_backbone", "queries", "test_queries"}
    assert planned(finished) == {}


def test_a_deleted_intermediate_is_noticed(finished):
    file = finished / "results/tiny/digits/coda_prompt/student-vit_nano-q-vit_nano/seed0/task0"
    file = file / "learner.safetensors"
    kept = file.read_bytes()
    times = file.stat()
    file.unlink()
    try:
        assert planned(finished)["train"] >= 1
    finally:
        file.write_bytes(kept)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("name", ["tables/curves.csv", "../backbones/*.json", "../data/*/m*.json"])
def test_other_deleted_files_are_noticed_too(finished, name):
    file = next((finished / "results" / "tiny").glob(name))
    away = file.rename(file.with_suffix(".away"))
    try:
        assert planned(finished)
    finally:
        away.rename(file)


def test_a_touched_script_retrains_nothing(finished):
    script = ROOT / "workflow" / "scripts" / "train.py"
    times = script.stat()
    try:
        script.touch()
        assert planned(finished) == {}
    finally:
        os.utime(script, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_the_same_seed_twice_is_identical(finished, tmp_path):
    run(tmp_path)
    first, second = contents(finished), contents(tmp_path)
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_a_typo_is_one_sentence_before_any_work(tmp_path):
    result = snakemake(tmp_path, "-n", overlay="distillers: {kd: {alhpa: 0.3}}")
    assert result.returncode != 0
    assert "distillers.kd: unknown key 'alhpa'" in result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "results").exists()


def test_a_truncated_checkpoint_and_a_changed_backbone_are_refused(finished, tmp_path):
    subprocess.run(["cp", "-a", f"{finished}/.", tmp_path], check=True)
    teacher = tmp_path / "results/tiny/digits/coda_prompt/teacher-vit_micro-q-vit_nano/seed0"
    checkpoint = teacher / "task1" / "learner.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:500])
    result = snakemake(tmp_path, "--cores", "2")
    assert result.returncode != 0
    assert "task1/learner.safetensors cannot be read" in result.stderr
    assert "Traceback (most recent call last)" not in result.stderr.split("cdl: ")[0][-2000:]

    subprocess.run(["cp", "-a", f"{finished}/.", tmp_path], check=True)
    backbone = next((tmp_path / "results" / "backbones").glob("vit_nano-*.safetensors"))
    other = next((tmp_path / "results" / "backbones").glob("vit_micro-*.safetensors"))
    backbone.write_bytes(other.read_bytes())
    result = snakemake(tmp_path, "--cores", "2", "--keep-going")
    assert result.returncode != 0
    assert re.search(r"vit_nano-\w+.safetensors has sha256 \w+ but vit_nano", result.stderr)
