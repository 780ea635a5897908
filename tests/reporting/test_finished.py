"""`cdl tables`: tabulate finished runs of the configuration without training."""

import os
import subprocess

import pandas as pd
import pytest
from forked import run_module
from runs import CONFIGS, ROOT, planned, run, snakemake

from cdl.inventory.trace import trace
from cdl.layout import ResultsFolder

pytestmark = pytest.mark.slow

OVERLAY = """
name: part
datasets: {digits: {published: cifar100}}
backbones: {vit_micro: {published: vit_base}, vit_nano: {published: vit_small}}
grid: {distillers: [none, kd]}
"""
TABLES = "results/part/tables"
NAME = "digits_micro-nano"
RUNS = "results/part/digits/coda_prompt"
STUDENT = f"{RUNS}/kd-vit_nano-from-vit_micro-q-vit_nano/seed0"


def tabulated(folder, more=""):
    """Distillers with a number in the partial table."""
    (folder / "tabulated.yaml").write_text(OVERLAY + more)
    files = [*map(str, CONFIGS), str(folder / "tabulated.yaml")]
    command = ["cdl", "tables", *files, "--directory", str(folder)]
    printed = run_module(*command, check=True, cwd=ROOT).stdout
    partial = folder / TABLES / "partial"
    table = pd.read_csv(partial / f"{NAME}.csv", keep_default_na=False)
    n = (table["accuracy"] != "not run").sum()
    assert printed.endswith(f"{n} of 3 runs are finished; tables: {TABLES}/partial\n")
    summary = (partial / "summary.md").read_text()
    assert len(table) == 3
    assert ("not run" in summary) == (table["accuracy"] == "not run").any()
    assert not (table == "").any(axis=None)
    return table.loc[table["accuracy"] != "not run", "distiller"].tolist()


def state(folder):
    return {
        path: path.stat().st_mtime_ns
        for path in (folder / "results").rglob("*")
        if path.is_file() and "partial" not in path.parts
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("finished")


def test_nothing_is_finished_yet(folder):
    with pytest.raises(subprocess.CalledProcessError) as refused:
        tabulated(folder)
    assert "contains no results of 'part'; run `cdl run CONFIG` first" in refused.value.stderr
    (folder / "results" / "part").mkdir(parents=True)
    assert tabulated(folder) == []
    assert state(folder) == {}


def test_a_part_is_finished(folder):
    undistilled = [f"{RUNS}/{who}-q-vit_nano" for who in ("teacher-vit_micro", "student-vit_nano")]
    run(folder, *(f"{path}/seed0/results.json" for path in undistilled), overlay=OVERLAY)
    before = state(folder)
    assert tabulated(folder) == ["(teacher)", "none"]
    assert state(folder) == before


def test_a_table_as_target_runs_its_inputs_once(folder):
    run(folder, f"{TABLES}/{NAME}.md", overlay=OVERLAY)
    assert not (folder / TABLES / "results.csv").exists()
    (folder / TABLES / "partial" / "results.csv").unlink()
    (traced,) = trace(STUDENT, ResultsFolder(folder / "results")).values()  # from the pair's table
    assert all(link.holds for link in traced.links)
    assert f"{TABLES}/{NAME}.runs.csv" in traced.links[0].text
    subprocess.run(["rm", "-r", folder / TABLES / "partial"], check=True)
    run(folder, overlay=OVERLAY)
    assert planned(folder, overlay=OVERLAY) == {}
    assert tabulated(folder) == ["(teacher)", "none", "kd"]
    assert planned(folder, overlay=OVERLAY) == {}
    whole = folder / TABLES
    for name in ["summary.md", "summary.csv", *(f"{NAME}.{k}" for k in ("csv", "md", "tex"))]:
        assert (whole / "partial" / name).read_bytes() == (whole / name).read_bytes()


def test_it_does_not_wait_for_a_run_in_progress(folder):
    locks = folder / ".snakemake" / "locks"
    locks.mkdir(exist_ok=True)
    lock = locks / "0.output.lock"
    lock.write_text("".join(f"{path.relative_to(folder)}\n" for path in state(folder)))
    refused = snakemake(folder, "--cores", "1", "collect", overlay=OVERLAY)
    assert refused.returncode != 0
    assert "LockException" in refused.stderr
    assert tabulated(folder) == ["(teacher)", "none", "kd"]
    lock.unlink()


@pytest.mark.parametrize(
    ("edit", "left"),
    [
        ("distillers: {kd: {alpha: 0.3}}", ["(teacher)", "none"]),
        ("training: {teacher: {epochs: 2}}", ["none"]),
        ("training: {epochs: 2}", []),
    ],
)
def test_results_of_another_configuration_do_not_count(folder, edit, left):
    before = state(folder)
    assert tabulated(folder, edit) == left
    assert state(folder) == before


def test_results_of_other_checkpoints_do_not_count(folder):
    file = folder / STUDENT / "task1" / "learner.json"
    kept, times = file.read_text(), file.stat()
    file.write_text(kept.replace('"sha256": "', '"sha256": "0'))
    try:
        assert tabulated(folder) == ["(teacher)", "none"]
    finally:
        file.write_text(kept)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_snakemake_names_the_command(folder):
    refused = snakemake(folder, "--cores", "1", "tables", overlay=OVERLAY)
    assert refused.returncode != 0
    assert "tables: is not a target; run " in refused.stderr and " tables " in refused.stderr
