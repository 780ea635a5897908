"""`cdl trace` and `cdl status` on a small finished run."""

import json
import os
import re
import shutil
import signal
import time

import pandas as pd
import psutil
import pytest
from forked import run_module
from runs import CONFIGS, ROOT, popen, run, snakemake

from cdl.inventory.trace import trace
from cdl.layout import ResultsFolder
from cdl.runtime.artifacts import read_json, write_json

TINY = "name: tiny"
KD = "digits/coda_prompt/kd-vit_nano-from-vit_micro-q-vit_nano/seed0"
TEACHER = "digits/coda_prompt/teacher-vit_micro-q-vit_nano/seed0"


def cdl(*arguments, cwd=ROOT):
    return run_module("cdl", *arguments, cwd=cwd)


@pytest.fixture
def status(tmp_path_factory):
    """What `cdl status` prints for a folder and an overlay of the tiny configuration."""
    file = tmp_path_factory.mktemp("overlay") / "overlay.yaml"

    def status_with(folder, overlay):
        file.write_text(overlay)
        return status_of(folder, *CONFIGS, file)

    return status_with


def status_of(folder, *files):
    answer = cdl("status", *files, "--directory", folder, "--cores", 2)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def wait(condition, process):
    end = time.monotonic() + 300
    while not condition():
        assert process.poll() is None and time.monotonic() < end, (
            "the process ended or took more than 300 s"
        )
        time.sleep(0.1)


def test_status_before_anything_has_run(status, tmp_path):
    before = status(tmp_path, TINY)
    assert "missing  4 cells, 20 jobs" in before
    assert "time left: unknown for 20 jobs" in before


def test_status_of_a_finished_and_of_a_larger_configuration(status, finished):
    assert "done     4 cells, 20 jobs" in status(finished, TINY)
    assert "all runs are finished" in status(finished, TINY)
    larger = status(finished, "grid: {distillers: [none, kd, cdl_prompt, dkd]}")
    assert "tiny: 5 cells, 23 jobs" in larger
    assert "missing  1 cells, 3 jobs" in larger
    guessed = r"(\d+ s|\d+\.\d min)"  # as long as jobs took here
    assert re.search(rf"time left: {guessed} for 3 jobs, {guessed} with 2 at a time", larger)
    edited = status(finished, "distillers: {kd: {alpha: 0.3}}")
    assert f"missing  {KD}: " in edited
    assert edited.count("made with other values") == 3


def test_status_of_a_failed_run(status, copied):
    hot = "grid: {distillers: [kd, {block: kd, variant: hot, temperature: 1.0e-42}]}"
    assert snakemake(copied, "--cores", "2", overlay=hot).returncode == 1
    answer = status(copied, hot)
    assert "failed   1 cells, 1 jobs" in answer
    assert re.search("distil of .*/kd.hot-.*: the loss is not finite in task 1, epoch 1", answer)


def test_status_of_running_and_killed_runs(status, copied):
    long = "training: {epochs: 100000, teacher: {epochs: 1}}\ncompute: {targets: online}\n"
    long += "grid: {distillers: [kd]}"
    run(copied, f"results/tiny/{TEACHER}/results.json", overlay=long)
    task = f"results/tiny/{KD}/task0"
    log = copied / task / "distil.log"

    def start():
        """Start one long job, and wait until it trains."""
        start_time = time.time()
        process = popen(copied, f"{task}/learner.json", overlay=long)
        wait(lambda: log.is_file() and log.stat().st_mtime > start_time, process)
        wait(lambda: "/100000" in log.read_text(), process)
        return process

    process = start()
    answer = status(copied, long)
    assert "running  1 cells, 1 jobs" in answer
    assert "done     1 cells" in answer
    children = psutil.Process(process.pid).children(recursive=True)
    (job,) = (p for p in children if p.cmdline() and p.cmdline()[-1].endswith("distil.py"))
    job.kill()
    assert process.wait() == 1
    answer = status(copied, long)
    assert "failed   1 cells, 1 jobs" in answer
    assert "task0/learner.json: ended without an error message" in answer

    process = start()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    answer = status(copied, long)
    assert "task0/learner.json: interrupted" in answer
    assert re.search(r"remove its lock with `.*cdl run .*--unlock`, then resume with `", answer)


def test_status_needs_no_checkout_and_reports_an_invalid_value_in_one_line(tmp_path):
    answer = cdl("status", CONFIGS[0], cwd=tmp_path)
    assert answer.returncode == 0
    assert "done     0 cells, 0 jobs" in answer.stdout
    assert f"{tmp_path} contains no results of " in answer.stdout
    (tmp_path / "bad.yaml").write_text("grid: {seeds: [-1]}")
    answer = cdl("status", CONFIGS[0], tmp_path / "bad.yaml")
    assert answer.returncode == 2
    assert answer.stderr.startswith("cdl: grid.seeds.0: -1 is less than the minimum")


@pytest.mark.parametrize("cell", [KD, f"results/tiny/{KD}", f"{KD[:-5]}0", "tiny/digits"])
def test_trace_finds_a_cell_and_its_chain_holds(finished, cell):
    chains = trace(cell, ResultsFolder(finished / "results"))
    assert f"results/tiny/{KD}" in chains
    assert len(chains) == (4 if cell == "tiny/digits" else 1)
    for _, _, links in chains.values():
        assert [link for link in links if not link.holds] == []
        assert [link.what for link in links][:5] == [
            *("table", "protocol", "results", "configuration", "predictions")
        ]
        assert {"task 1", "task 2", "data", "backbone"} <= {link.what for link in links}
        assert links[-1].what == "page"


def edit_json(path, change):
    """Change a record and write it with a new checksum."""
    value, names = read_json(path), json.loads(path.read_text())["_record"]["files"]
    change(value)
    write_json(path, value, files=[path.parent / name for name in names])


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def retouch_table(root):
    table = pd.read_csv(root / "tiny/tables/results.csv", keep_default_na=False)
    table["final_average_accuracy"] += 1
    table.to_csv(root / "tiny/tables/results.csv", index=False)
    edit_json(root / "tiny/tables/protocols.json", lambda _: None)


def swap_teacher(root):
    for name in ("learner.safetensors", "learner.json"):
        shutil.copy(
            root / "tiny" / TEACHER / "task0" / name, root / "tiny" / TEACHER / "task1" / name
        )


def forget_images(root):
    path = root / "tiny" / KD / "predictions.parquet"
    pd.read_parquet(path).iloc[1:].to_parquet(path)
    edit_json(path.with_name("results.json"), lambda _: None)


@pytest.mark.parametrize(
    ("harm", "broken", "message"),
    [
        (retouch_table, ["results"], "final_average_accuracy is .*, but .* in the table"),
        (
            lambda root: edit_json(
                root / "tiny" / KD / "results.json", lambda r: r["learner"].update(seed=7)
            ),
            ["configuration"],
            "with learner.seed 7, expected 0",
        ),
        (
            lambda root: edit_json(
                root / "tiny" / KD / "results.json", lambda r: r["matrix"][1].__setitem__(0, 99.0)
            ),
            ["results", "predictions"],
            "but its matrix gives",
        ),
        (
            lambda root: edit_json(
                root / "tiny/tables/protocols.json",
                lambda p: [protocol["training"].update(lr=1) for protocol in p.values()],
            ),
            ["protocol"],
            "has the hash",
        ),
        (
            lambda root: (root / "tiny" / KD / "results.json").unlink(),
            ["results"],
            "cannot be read",
        ),
        (lambda root: flip(root / "tiny" / KD / "task1/losses.csv"), ["task 2"], "losses.csv has"),
        (
            lambda root: flip(root / "tiny" / TEACHER / "task0/targets.safetensors"),
            ["targets 1"],
            "targets.safetensors has sha256",
        ),
        (
            lambda root: flip(next(root.glob("queries/vit_nano-*/task1.safetensors"))),
            ["queries 2"],
            "task1.safetensors has sha256",
        ),
        (lambda root: flip(root / "tiny/index.html"), ["page"], "index.html has sha256"),
        (forget_images, ["predictions"], "of 80|of \\[48, 32\\]"),
        (
            lambda root: flip(root / "tiny" / KD / "predictions.parquet"),
            ["predictions"],
            "predictions.parquet has sha256",
        ),
        (
            lambda root: flip(root / "tiny" / KD / "task0/learner.safetensors"),
            ["task 1"],
            "has sha256",
        ),
        (
            lambda root: [f.unlink() for f in (root / "tiny" / KD / "task1").glob("learner.*")],
            ["task 2"],
            "cannot be read",
        ),
        (swap_teacher, ["teacher task 2"], "task1/losses.csv has sha256"),
        (
            lambda root: flip(next(root.glob("data/*/test.pixels"))),
            ["data"],
            "test.pixels: the image digits.* does not have its recorded sha256",
        ),
        (
            lambda root: next(root.glob("backbones/vit_nano-*.json")).unlink(),
            ["backbone"],
            "backbones/vit_nano-.*.json: cannot be read",
        ),
    ],
)
def test_trace_says_where_the_chain_breaks(finished, tmp_path, harm, broken, message):
    root = tmp_path / "results"
    shutil.copytree(finished / "results", root)
    harm(root)
    links = trace(KD, ResultsFolder(root))[f"results/tiny/{KD}"].links
    wrong = [link for link in links if not link.holds]
    assert [link.what for link in wrong] == broken
    assert re.search(message, wrong[0].text)


def test_trace_shows_the_caches_of_its_own_cell_only(finished, tmp_path):
    root = tmp_path / "results"
    shutil.copytree(finished / "results", root)
    first = next(root.glob("queries/vit_nano-*/task0.json")).parent
    other = root / "queries/vit_nano-00000000"
    shutil.copytree(first, other)
    edit_json(other / "task0.json", lambda record: record["spec"].update(seed=7))
    flip(other / "task0.safetensors")
    links = trace(KD, ResultsFolder(root))[f"results/tiny/{KD}"].links
    shown = [link for link in links if link.what.startswith("queries")]
    assert all(link.holds for link in links)
    assert any(first.name in link.text for link in shown)
    assert not any(other.name in link.text for link in shown)


def test_trace_names_a_damaged_table(finished, tmp_path):
    shutil.copytree(finished / "results", tmp_path / "results")
    flip(tmp_path / "results/tiny/tables/results.csv")
    answer = cdl("trace", KD, cwd=tmp_path)
    assert (answer.returncode, answer.stderr) == (1, "")
    assert re.search(r"BROKEN +table +results/tiny/tables/results.csv has sha256", answer.stdout)


def test_trace_on_the_command_line(finished, tmp_path):
    answer = cdl("trace", KD, cwd=finished)
    assert answer.returncode == 0
    assert answer.stdout.startswith(f"results/tiny/{KD[:-6]}\n  accuracy ")
    answer = cdl("trace", KD, "--all", cwd=finished)
    assert answer.stdout.startswith(f"results/tiny/{KD}\n  ok")
    shutil.copytree(finished / "results", tmp_path / "results")
    flip(tmp_path / "results" / "tiny" / KD / "task0" / "learner.safetensors")
    answer = cdl("trace", KD, cwd=tmp_path)
    assert answer.returncode == 1
    assert "BROKEN" in answer.stdout
    answer = cdl("trace", "digits/nothing", cwd=finished)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith(
        "cdl: 'digits/nothing' is not a cell of a table; expected one such as results/"
    )
