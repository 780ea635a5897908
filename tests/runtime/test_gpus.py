"""One training job per GPU: leases, counting, and the profiles that use them."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cdl.runtime.errors import CdlError
from cdl.runtime.gpus import leased_gpu, visible_gpus

ROOT = Path(__file__).parents[2]
HOLD = """
import os, sys, time
from types import SimpleNamespace
from cdl.runtime.jobs import job
execution = {"device": "auto", "capture": 0, "limit_gb": "1", "save_minutes": "1"}
resources = SimpleNamespace(gpu=1, jobs_per_gpu=int(sys.argv[1]), **execution)
given = SimpleNamespace(resources=resources, log=["/dev/stderr"], params={}, threads=1)
seen = os.environ.get("CUDA_VISIBLE_DEVICES")
with job(given) as execution:
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == seen
    print("ready", flush=True)
    execution.lease()
    execution.lease()  # the same one
    print(os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch, tmp_path):
    """No GPU, and a folder of its own for leases."""
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("PATH", f"{tmp_path}:{Path(sys.executable).parent}:/usr/bin:/bin")


def nvidia_smi(tmp_path, script):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


@pytest.fixture
def holder():
    """A maker of processes that hold a lease; each tells its GPU."""
    processes = []

    def hold(jobs_per_gpu=1, **environment):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(jobs_per_gpu)],
            env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield hold
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


@pytest.mark.parametrize(
    ("value", "seen"),
    [("0", ["0"]), ("3, 1", ["3", "1"]), ("GPU-ab,GPU-cd", ["GPU-ab", "GPU-cd"])]
    + [(none, []) for none in ("", "-1", "NoDevFiles")],
)
def test_a_given_choice_of_gpus_is_respected(monkeypatch, tmp_path, value, seen):
    nvidia_smi(tmp_path, "echo 7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert visible_gpus() == seen


def test_gpus_are_counted_where_nothing_is_given(tmp_path):
    assert visible_gpus() == []
    nvidia_smi(tmp_path, "echo 0; echo 1")
    assert visible_gpus() == ["0", "1"]
    nvidia_smi(tmp_path, "echo No devices were found; exit 6")
    assert visible_gpus() == []


def test_without_a_gpu_nothing_is_pinned(tmp_path):
    with leased_gpu() as gpu:
        assert gpu is None
        assert "CUDA_VISIBLE_DEVICES" not in os.environ
    assert not list(tmp_path.glob("*.lock"))


def test_a_lease_ends_with_its_block(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,2")
    for _ in range(2):
        with leased_gpu() as gpu:
            assert os.environ["CUDA_VISIBLE_DEVICES"] == gpu == "4"
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,2"


def test_every_job_has_a_gpu_of_its_own_and_a_killed_job_frees_it(tmp_path, holder):
    nvidia_smi(tmp_path, "echo 0; echo 1")
    held = [holder(), holder()]
    gpus = [process.stdout.readline().strip() for process in held]
    assert sorted(gpus) == ["0", "1"]
    third = holder()
    assert "all GPUs (0, 1) are taken" in third.stderr.readline()
    held[0].kill()
    assert third.stdout.readline().strip() == gpus[0]
    assert held[1].poll() is None


@pytest.mark.parametrize("foreign", ["file", "link", "folder"])
def test_what_others_put_under_a_locks_name_blocks_no_job(monkeypatch, tmp_path, foreign):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    path = tmp_path / f"cdl-gpu-{os.getuid()}-host-0.lock"
    held = None
    if foreign == "file" and os.getuid() == 0:
        held = path.open("w")
        os.chown(path, 12345, 12345)  # another user, who holds the lock
        fcntl.flock(held, fcntl.LOCK_EX)
    elif foreign == "file":
        path.touch(0)  # as little to be opened as another user's
    elif foreign == "link":
        path.symlink_to("/etc/passwd")
    else:
        path.mkdir()
    with leased_gpu() as gpu:
        assert gpu == "0"
        second = path.with_name(f"cdl-gpu-{os.getuid()}-host-0.1.lock").open()
        with pytest.raises(BlockingIOError):  # the next job waits for this one
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        second.close()
    if held:
        held.close()


def test_no_lock_at_all_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("os.open", lambda *_: (_ for _ in ()).throw(PermissionError("denied")))
    with pytest.raises(
        CdlError, match="no lock file .* can be opened .denied.; remove them or set"
    ):
        with leased_gpu():
            pass


def test_a_job_gets_ready_while_another_has_the_gpu(holder):
    working = holder(CUDA_VISIBLE_DEVICES="3")
    assert working.stdout.readline().strip() == "3"
    following = holder(CUDA_VISIBLE_DEVICES="3")  # it is ready
    assert "all GPUs (3) are taken" in following.stderr.readline()
    working.kill()
    assert following.stdout.readline().strip() == "3"


def test_small_models_share_gpus_and_the_emptiest_is_taken(holder):
    held = [holder(2, CUDA_VISIBLE_DEVICES="0,1") for _ in range(4)]
    assert [process.stdout.readline().strip() for process in held] == ["0", "1", "0", "1"]
    fifth = holder(2, CUDA_VISIBLE_DEVICES="0,1")
    assert "all GPUs (0, 1) are taken" in fifth.stderr.readline()
    held[1].kill()
    assert fifth.stdout.readline().strip() == "1"


def test_two_slurm_jobs_may_both_call_their_gpu_0(holder):
    held = [holder(CUDA_VISIBLE_DEVICES="0", SLURM_JOB_ID=job) for job in ("11", "12")]
    assert [process.stdout.readline().strip() for process in held] == ["0", "0"]
