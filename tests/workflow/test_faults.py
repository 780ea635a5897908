"""Faults injected into the workflow: one error message, and the next run resumes."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from runs import contents, planned, popen, run, snakemake
from safetensors import SafetensorError

from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError

RUNS = "results/tiny/digits/coda_prompt"
STUDENT = f"{RUNS}/kd-vit_nano-from-vit_micro-q-vit_nano/seed0"
NONE = "student-vit_nano-q-vit_nano"


def forget(folder, run_folder=STUDENT):
    """Remove the files of one student and the tables, so that a few short jobs remain."""
    subprocess.run(["rm", "-r", folder / run_folder, folder / "results/tiny/tables"], check=True)


def job_of(parent, rule):
    """Return the process of a running job of a rule, as soon as there is one."""
    while parent.poll() is None:
        for process in psutil.Process(parent.pid).children(recursive=True):
            try:
                command = process.cmdline()
            except psutil.Error:
                continue
            script = command[-1] if command else ""
            if script.endswith(f".{rule}.py") and "python" in command[0]:
                return process
        time.sleep(0.05)
    pytest.fail(f"no job of {rule} was seen: {parent.communicate()[0][-2000:]}")


def end(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_a_killed_job_fails_and_the_next_run_ends_identical(finished, copied):
    forget(copied)
    started = popen(copied)
    job_of(started, "distil").kill()
    output = started.communicate()[0]
    assert started.returncode != 0
    assert "Error in rule distil" in output
    run(copied)
    assert contents(copied) == contents(finished)


def test_a_killed_server_of_warm_starts_costs_no_job(finished, copied):
    subprocess.run(["rm", "-r", copied / STUDENT], check=True)
    started = popen(copied, f"{STUDENT}/results.json", own_server=True)
    job_of(started, "distil")
    (server,) = (
        p
        for p in psutil.Process(started.pid).children()
        if "cdl.runtime.forkserver.server" in p.cmdline()
    )
    server.kill()
    started.communicate()
    assert started.returncode == 0
    assert contents(copied) == contents(finished)


@pytest.mark.parametrize("alone", [pytest.param(False, marks=pytest.mark.nightly), True])
def test_a_killed_snakemake_needs_unlock_and_then_goes_on(finished, copied, alone):
    forget(copied)
    started = popen(copied)
    job_of(started, "distil")
    if alone:  # its jobs keep running, and write the same files as the next run
        started.kill()
        started.wait()
        started.stdout.close()
    else:  # and its jobs, as if a terminal was closed or a machine failed
        end(started)
    refused = snakemake(copied, "--cores", "2")
    assert refused.returncode != 0
    assert "--unlock" in refused.stderr
    assert snakemake(copied, "--unlock").returncode == 0
    run(copied)
    assert contents(copied) == contents(finished)


def test_an_interrupted_snakemake_goes_on_at_once(finished, copied):
    forget(copied)
    started = popen(copied)
    job_of(started, "distil")
    os.killpg(started.pid, signal.SIGINT)  # Ctrl-C reaches the whole group
    started.communicate()
    assert started.returncode != 0
    run(copied)
    assert contents(copied) == contents(finished)


def test_sigterm_saves_the_job_and_it_goes_on(copied):
    overlay = "name: long\ncompute: {targets: online}\n"
    overlay += "training: {epochs: 100000, teacher: {epochs: 1}}"
    task = copied / STUDENT.replace("tiny", "long") / "task0"
    goal = str((task / "learner.safetensors").relative_to(copied))
    for goes_on in (False, True):
        started = popen(copied, goal, overlay=overlay)
        job, log = job_of(started, "distil"), task / "distil.log"
        while started.poll() is None and "/100000 " not in (log.exists() and log.read_text() or ""):
            time.sleep(0.02)
        job.terminate()
        output = started.communicate()[0]
        assert started.returncode != 0
        assert "exit status 75" in output
        assert "stopped by SIGTERM; the state is saved" in log.read_text()
        assert ("resuming at epoch" in log.read_text()) == goes_on
        assert len(list((copied / "results/state").glob("*.safetensors"))) == 1 + 1  # the teacher's


def test_a_second_snakemake_in_the_folder_is_refused(copied):
    forget(copied)
    started = popen(copied)
    try:
        job_of(started, "distil")
        second = snakemake(copied, "--cores", "2")
        assert second.returncode != 0
        assert "cannot be locked" in second.stderr
    finally:
        end(started)


def test_touched_files_retrain_nothing(copied):
    files = [path for path in (copied / "results").rglob("*") if path.is_file()]
    assert any(path.stat().st_size > 10**6 for path in files)  # Snakemake compares small ones
    for path in files:
        path.touch()
    assert planned(copied) == {}
    for path in files:
        os.utime(path, (4e9, 4e9))  # a clock far in the future
    assert planned(copied) == {}


def test_a_damaged_checkpoint_costs_no_finished_work(copied):
    flip(copied / STUDENT / "task0/learner.safetensors")
    before = contents(copied)
    assert planned(copied) == {}
    run(copied)
    assert contents(copied) == before


def test_damaged_shared_files_are_made_again_without_retraining(copied, finished):
    (data,) = (copied / "results/data").iterdir()
    pixels = np.fromfile(data / "test.pixels", np.uint8)
    (255 - pixels).tofile(data / "test.pixels")
    (copied / STUDENT / "results.json").unlink()
    failed = snakemake(copied, "--cores", "2")
    assert failed.returncode != 0
    assert "test.pixels: the image" in failed.stderr
    subprocess.run(["rm", "-r", data], check=True)
    run(copied, "--until", "prepare_dataset")
    rules = {"evaluate", "collect", "tabulate", "plot", "page"}
    assert planned(copied).keys() <= rules and "evaluate" in planned(copied)
    run(copied)
    assert contents(copied) == contents(finished)


def flip(path):
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def truncate(path):
    path.write_bytes(path.read_bytes()[:300])


def swap(path):
    path.write_bytes((path.parents[2] / NONE / "seed0" / path.name).read_bytes())


@pytest.mark.parametrize(
    ("name", "harm", "message"),
    [
        ("results.json", swap, 'results.json was made with learner = "'),
        ("results.json", truncate, "results.json cannot be read"),
        ("predictions.parquet", swap, "predictions.parquet has sha256"),
        ("predictions.parquet", flip, "predictions.parquet has sha256"),
        ("predictions.parquet", truncate, "predictions.parquet has sha256"),
    ],
)
def test_damaged_and_swapped_results_reach_no_table_and_no_figure(copied, name, harm, message):
    harm(copied / STUDENT / name)
    for figure in (copied / "results/tiny/figures").iterdir():
        figure.unlink()
    (copied / "results/tiny/tables/results.csv").unlink()
    result = snakemake(copied, "--cores", "2")
    assert result.returncode != 0
    assert message in result.stderr
    assert not list((copied / "results/tiny/figures").glob("gain*"))


def test_swapped_results_of_two_runs_are_told_by_their_specification(copied):
    other = copied / RUNS / "student-vit_nano-q-vit_nano/seed0/task0"
    for name in ("learner.safetensors", "learner.json"):
        (copied / STUDENT / "task0" / name).write_bytes((other / name).read_bytes())
    result = snakemake(copied, "--cores", "2", "--forcerun", "evaluate", "--keep-going")
    assert result.returncode != 0
    assert 'was made with learner.teacher = null, expected "vit_micro"' in result.stderr


def test_a_truncated_checkpoint_is_refused_by_name(copied):
    teacher = copied / RUNS / "teacher-vit_micro-q-vit_nano/seed0"
    truncate(teacher / "task1" / "learner.safetensors")
    (teacher / "results.json").unlink()  # so that the next job reads the checkpoint
    result = snakemake(copied, "--cores", "2")
    assert result.returncode != 0
    assert "task1/learner.safetensors has sha256" in result.stderr
    assert "Traceback (most recent call last)" not in result.stderr.split("cdl: ")[0][-2000:]


def test_a_swapped_backbone_is_refused_by_name(copied):
    backbone = next((copied / "results" / "backbones").glob("vit_nano-*.safetensors"))
    other = next((copied / "results" / "backbones").glob("vit_micro-*.safetensors"))
    backbone.write_bytes(other.read_bytes())
    (copied / STUDENT / "results.json").unlink()
    result = snakemake(copied, "--cores", "2", "--keep-going")
    assert result.returncode != 0
    assert re.search(r"vit_nano-\w+.safetensors has sha256 \w+ but vit_nano", result.stderr)


@pytest.fixture
def small_disk(tmp_path):
    """Return a folder on a file system of 300 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        if os.environ.get("CI"):
            pytest.fail("CI must mount a small file system (as root)")
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def write_as_a_job(target, size):
    """Write an artifact in a process like a job of the workflow."""
    script = (
        "import os, torch\n"
        "from types import SimpleNamespace as Given\n"
        "from cdl.runtime import artifacts\n"
        "from cdl.runtime.jobs import job\n"
        "with job(Given(log=[os.devnull], resources=Given())):\n"
        f"    artifacts.save({str(target)!r}, {{'x': torch.zeros({size})}}, {{}})\n"
    )
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("state", "message"),
    [("remount,rw", "No space left on device"), ("remount,ro", "Read-only file system")],
)
def test_a_job_on_a_full_or_read_only_disk_fails_in_one_sentence(small_disk, state, message):
    assert write_as_a_job(small_disk / "before.safetensors", 100).returncode == 0
    subprocess.run(["mount", "-o", state, small_disk], check=True)
    result = write_as_a_job(small_disk / "after.safetensors", 10**6)
    assert result.returncode == 1
    assert re.fullmatch(
        rf"cdl: .*after.safetensors cannot be written: {message}; .*\n", result.stderr
    )
    assert artifacts.load(small_disk / "before.safetensors")  # intact
    assert not [path for path in small_disk.iterdir() if "after" in path.name]


def test_a_full_disk_is_one_sentence_and_leaves_no_rest(lab, small_disk):
    here = lab()
    student = here.run(role="student", teacher=None)
    here.task_inputs(student, 0)  # computes its queries
    (small_disk / "fill").write_bytes(bytes(250_000))
    here.trained = lambda *_: str(small_disk / "task0" / "learner.safetensors")
    with pytest.raises(CdlError, match=r"learner.safetensors cannot be written: No space left"):
        here.learn(student, 0)
    assert not list(small_disk.rglob("*learner*"))
    (small_disk / "fill").unlink()
    subprocess.run(["mount", "-o", "remount,size=5m", small_disk], check=True)
    here.learn(student, 0)
    assert artifacts.load(small_disk / "task0" / "learner.safetensors", task=0)


REASONS = [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EFBIG]


@pytest.mark.parametrize("kind", [OSError, SafetensorError])
@pytest.mark.parametrize("number", REASONS)
def test_every_writer_says_why_it_cannot(tmp_path, number, kind):
    reason = os.strerror(number)
    of_rust = f"I/O error: {reason} (os error {number})"
    with pytest.raises(CdlError, match=f"cannot be written: {reason}"):
        with artifacts.replacing(tmp_path / "x") as temporary:
            temporary.write_text("half")
            raise OSError(number, reason) if kind is OSError else kind(of_rust)
    assert not list(tmp_path.iterdir())


def test_exhausted_memory_says_what_to_lower(tmp_path):
    script = (
        "import torch\n"
        "from types import SimpleNamespace as Given\n"
        "from cdl.runtime.jobs import job\n"
        f"with job(Given(log=[{str(tmp_path / 'log')!r}], resources=Given())):\n"
        "    raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB')\n"
    )
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "Tried to allocate 2 GiB); reduce training.batch_size" in result.stderr
    assert "Traceback" not in result.stderr
    assert "reduce training.batch_size" in Path(tmp_path / "log").read_text()
