"""A killed or stopped job resumes and gives bit-identical results."""

import json
import logging
import multiprocessing
import os
import random
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import safe_open

from cdl.runtime import artifacts
from cdl.runtime.errors import Interrupted
from cdl.training.checkpointing import State

LONG = {"training": {"epochs": 3}, "grid": {"distillers": ["none", "kd", "cdl_prompt"]}}


def train(here):
    here.learn(here.run(role="teacher"), 0)


def distil(here):
    here.learn(here.student("cdl_prompt"), 0)


def teacher_targets(here):
    here.cache(here.planned.learning(here.student("kd"), 0)["targets"])


def queries(here):
    here.cache(here.planned.learning(here.run(role="teacher"), 0)["queries"])


JOBS = {job.__name__: job for job in (train, distil, teacher_targets, queries)}
BEFORE = {  # targets that must exist first
    "train": [queries],
    "distil": [queries, train, teacher_targets],
    "teacher_targets": [queries, train],
    "queries": [],
}


def prepared(lab, name, job):
    here = lab(LONG | {"name": name})
    for first in BEFORE[job]:
        first(here)
    return here


def written(here):
    """Return the hashes of all files except states, by path."""
    return {
        str(path.relative_to(here.folder)): artifacts.fingerprint_file(path)
        for path in sorted(here.folder.rglob("*"))
        if path.is_file() and path.parent.name != "state"
    }


def states(here):
    return list((here.folder / "state").glob("*"))


def child(job, here, fatal, moment):
    """Run a job in a process that kills itself at its `fatal`-th save."""
    save, replace = State.save, os.replace
    count = 0

    def saving(self, *arguments):
        nonlocal count
        count += 1
        if count == fatal and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        save(self, *arguments)
        if count == fatal and moment == "after":
            os.kill(os.getpid(), signal.SIGKILL)

    def replacing(*arguments):
        if count == fatal and moment == "while":
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*arguments)

    State.save, os.replace = saving, replacing
    JOBS[job](here)


def run_in_child(*arguments):
    process = multiprocessing.get_context("fork").Process(target=child, args=arguments)
    process.start()
    process.join()
    return process.exitcode


@pytest.mark.parametrize("job", JOBS)
def test_killed_at_random_moments_it_ends_bit_identical(lab, job):
    undisturbed = prepared(lab, "undisturbed", job)
    JOBS[job](undisturbed)
    killed = prepared(lab, "killed", job)
    finished = set(states(killed))
    chance = random.Random(job)
    progress = []
    for moment in ("before", "while", "after"):
        exit_code = run_in_child(job, killed, chance.randint(2, 4), moment)
        assert exit_code == -signal.SIGKILL
        (state,) = set(p for p in states(killed) if p.suffix == ".safetensors") - finished
        with safe_open(state, framework="pt") as file:
            progress.append(json.loads(file.metadata()["state"])["at"])
    assert progress == sorted(progress)
    assert progress[0] < progress[-1]  # resumed, not started again
    JOBS[job](killed)
    a, b = written(undisturbed), written(killed)
    assert a == {k.replace("killed", "undisturbed"): v for k, v in b.items()}
    for path in killed.folder.rglob(".*"):
        assert path.parent.name == "state", path  # temporary files left by the kill


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_and_stops(lab, number, monkeypatch):
    undisturbed = prepared(lab, "undisturbed", "train")
    train(undisturbed)
    here = prepared(lab, "stopped", "train")
    here.execution = replace(here.execution, save_minutes=1e9)
    due, steps = State.due, []

    def third_step(self):
        steps.append(1)
        if len(steps) == 3:
            os.kill(os.getpid(), number)
        return due(self)

    monkeypatch.setattr(State, "due", third_step)
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=f"stopped by {number.name}; the state is saved"):
        train(here)
    assert signal.getsignal(number) == before
    assert not Path(here.checkpoint(here.run(role="teacher"), 0)).exists()
    train(here)
    a, b = (artifacts.load(h.checkpoint(h.run(role="teacher"), 0)) for h in (undisturbed, here))
    assert a[1]["sha256"] == b[1]["sha256"]


def test_a_finished_task_is_written_again_without_training_until_it_is_evaluated(lab, monkeypatch):
    here = lab(LONG)
    run = here.run(role="teacher")
    for task in range(run.n_tasks):
        here.learn(run, task)
    output = Path(here.checkpoint(run, 1))
    first = output.read_bytes()
    output.unlink()
    from cdl.training.step import Step

    with monkeypatch.context() as patch:
        patch.setattr(Step, "_step", lambda *_: pytest.fail("trained again"))
        here.learn(run, 1)
    assert output.read_bytes() == first
    assert len(states(here)) == run.n_tasks
    here.evaluate(run)
    assert states(here) == []


@pytest.mark.parametrize("damage", ["truncated", "flipped", "another job's"])
def test_a_damaged_state_is_not_used(lab, damage, caplog):
    undisturbed, here = (prepared(lab, name, "train") for name in ("undisturbed", "damaged"))
    train(undisturbed)
    assert run_in_child("train", here, 3, "after") == -signal.SIGKILL
    (state,) = states(here)
    raw = bytearray(state.read_bytes())
    if damage == "truncated":
        state.write_bytes(raw[: len(raw) // 2])
    elif damage == "flipped":
        raw[-9] ^= 4
        state.write_bytes(raw)
    else:
        state.write_bytes(states(undisturbed)[0].read_bytes().replace(b"provenance", b"mode_of"))
    with caplog.at_level(logging.WARNING):
        train(here)
    assert "starting from the beginning" in caplog.text
    a, b = (artifacts.load(h.checkpoint(h.run(role="teacher"), 0)) for h in (undisturbed, here))
    assert a[1]["sha256"] == b[1]["sha256"]
