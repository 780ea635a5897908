"""GPUs: counting them and leasing each to one job at a time."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from forked import jobs_client

from cdl.runtime.errors import CdlError
from cdl.runtime.forkserver.client import THREADS
from cdl.runtime.gpus import leased_gpu, visible_gpus

HOLD = """
import os, time
from types import SimpleNamespace
from cdl.runtime.jobs import job
execution = {"device": "auto", "capture": 0, "limit_gb": "1", "save_minutes": "1"}
resources = SimpleNamespace(gpu=1, jobs_per_gpu=int(os.environ["JOBS_PER_GPU"]), **execution)
given = SimpleNamespace(resources=resources, log=["/dev/stderr"], params={}, threads=1)
seen = os.environ.get("CUDA_VISIBLE_DEVICES")
with job(given) as execution:
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == seen
    print("ready", flush=True)
    execution.lease()
    execution.lease()  # returns the same lease
    print(os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch, tmp_path):
    """Hide all GPUs; use a separate folder for locks."""
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:{Path(sys.executable).parent}:/usr/bin:/bin")


def nvidia_smi(tmp_path, script):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


@pytest.fixture
def holder(tmp_path):
    """Return a function that starts a process with a lease, which prints its GPU."""
    processes = []
    script = tmp_path / "hold.py"
    script.write_text(HOLD)
    one_thread = dict.fromkeys(THREADS, "1")

    def hold(jobs_per_gpu=1, **environment):
        process = subprocess.Popen(
            [*jobs_client(), sys.executable, script],
            env=os.environ | one_thread | {"JOBS_PER_GPU": str(jobs_per_gpu)} | environment,
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
    assert not list(tmp_path.rglob("*.lock"))


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


def test_an_unwritable_lock_folder_is_reported(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    (tmp_path / "cdl").touch()  # a file where a folder is needed
    with pytest.raises(CdlError, match="gpu-locks: GPU lock .* written .*set XDG_CACHE_HOME to"):
        with leased_gpu():
            pass
    (tmp_path / "cdl").unlink()
    denied = PermissionError("denied")
    monkeypatch.setattr(FileLock, "acquire", lambda *_, **__: (_ for _ in ()).throw(denied))
    with pytest.raises(CdlError, match="gpu-locks: GPU lock files cannot be written .denied"):
        with leased_gpu():
            pass


def test_lock_files_of_old_slurm_jobs_are_deleted(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    folder = tmp_path / "cdl" / "gpu-locks"
    for job in (None, "11", "12"):
        if job:
            monkeypatch.setenv("SLURM_JOB_ID", job)
        with leased_gpu():
            pass
    for path in folder.iterdir():
        if "slurm12" not in path.name:
            os.utime(path, (0, 0))
    with leased_gpu():
        host = platform.node()
        assert {path.name for path in folder.iterdir()} == {
            f"{host}-0-0.lock",
            f"{host}-slurm12-0-0.lock",
        }


def test_a_job_prepares_while_another_has_the_gpu(holder):
    working = holder(CUDA_VISIBLE_DEVICES="3")
    assert working.stdout.readline().strip() == "3"
    following = holder(CUDA_VISIBLE_DEVICES="3")  # has printed `ready`
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


def test_two_slurm_jobs_may_both_name_their_gpu_0(holder):
    held = [holder(CUDA_VISIBLE_DEVICES="0", SLURM_JOB_ID=job) for job in ("11", "12")]
    assert [process.stdout.readline().strip() for process in held] == ["0", "0"]
