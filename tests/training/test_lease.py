"""A job reads its inputs before it waits for a GPU and does not call CUDA before."""

import os
import subprocess
import sys
from dataclasses import replace

import lab as jobs
import pytest
import torch

from cdl.backbones.images import ImageBackbone
from cdl.data.packed import Packed
from cdl.evaluation import features
from cdl.models.learner import Learner
from cdl.runtime import artifacts
from cdl.runtime.gpus import leased_gpu
from cdl.training import targets, task

JOBS = ("write_queries", "write_test_queries", "write_targets", "learn_task", "evaluate_run")
IMPORTS = """
import torch
calls = []
for name in ("is_available", "device_count", "init", "_lazy_init"):
    setattr(torch.cuda, name, lambda name=name: calls.append(name) or 0)
import cdl.evaluation.evaluate, cdl.training.targets, cdl.training.task
print(calls)
"""


@pytest.fixture
def happened(monkeypatch, tmp_path):
    """Record events in order: a job's name, reads, its lease of a GPU, its work."""
    events = []

    def watch(owner, name, event):
        function = getattr(owner, name)

        def noted(*arguments, **options):
            events.append(event)
            return function(*arguments, **options)

        monkeypatch.setattr(owner, name, noted)

    for owner, name in (
        (ImageBackbone, "load"),
        (artifacts, "load"),
        (Packed, "pixels"),
        (Learner, "start_task"),
    ):
        watch(owner, name, "read")
    for owner, name in (
        (targets, "over_views"),
        (targets, "over_test_images"),
        (features, "over_test_images"),
        (task, "train_task"),
    ):
        watch(owner, name, "work")
    watch(torch.cuda, "is_available", "cuda")
    for name in JOBS:
        watch(jobs, name, name)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def lease():
        with leased_gpu() as gpu:
            events.append("lease")
            assert gpu == os.environ["CUDA_VISIBLE_DEVICES"] == "0"

    return events, lease


@pytest.mark.parametrize(
    ("method", "kd", "cached"),
    [
        ("coda_prompt", "kd", "cached"),
        ("coda_prompt", "fitnets", "online"),
        ("apt", "kd", "online"),
    ],
)
def test_every_job_reads_then_waits_for_its_gpu_then_works(lab, happened, method, kd, cached):
    events, lease = happened
    grid = {"methods": [method], "distillers": ["none", kd]}
    here = lab({"compute": {"device": "auto", "targets": cached}, "grid": grid})
    here.execution = replace(here.execution, lease=lease)
    here.learn_all(here.student(kd))
    here.evaluate(here.student(kd))
    starts = [i for i, event in enumerate(events) if event in JOBS]
    kinds = {events[start] for start in starts}
    assert kinds == (set(JOBS) if cached == "cached" else {"learn_task", "evaluate_run"})
    for start, end in zip(starts, [*starts[1:], len(events)], strict=True):
        job = events[start + 1 : end]
        leased = job.index("lease")
        assert set(job[:leased]) == {"read"}, events[start]
        assert job[leased + 1] == "cuda", events[start]
        assert "work" in job[leased + 2 :], events[start]
        assert not {"read", "lease", "cuda"} & set(job[leased + 2 :]), events[start]


@pytest.mark.slow
def test_imports_of_jobs_do_not_call_cuda():
    command = [sys.executable, "-c", IMPORTS]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (found.stdout, found.returncode) == ("[]\n", 0), found.stderr
