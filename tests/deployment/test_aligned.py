"""Students with aligned heads, and students whose trained part is in another folder."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from statistics_study import HEADS, KD, LABELLED, NONE, SELF, TEACHER
from test_learn import CPU, photos

import cdl
from cdl.deployment.learn import learn
from cdl.inventory.state import DONE, States
from cdl.runtime.artifacts import load, read_json
from cdl.runtime.errors import CdlError


@pytest.fixture
def study(statistics, tmp_path):
    """A copy of the finished study."""
    return Path(shutil.copytree(statistics, tmp_path / "study"))


def images(n=3):
    return np.random.default_rng(0).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)


def test_a_run_is_loaded_from_the_artifacts_that_were_evaluated(statistics):
    probabilities = {
        run: cdl.load(statistics / run).predict_proba(images())
        for run in (NONE, SELF, LABELLED, KD, HEADS)
    }
    assert len({p.tobytes() for p in probabilities.values()}) == 5
    files = read_json(statistics / HEADS / "results.json")["checkpoint_files"]
    assert files == [
        f"../../{Path(KD).parent.name}/seed0/task{t}/learner.safetensors" for t in (0, 1)
    ]
    assert not (statistics / HEADS / "task0").exists()
    assert cdl.load(statistics / HEADS, task=0).predict_proba(images()).shape == (3, 6)


def test_an_aligned_run_learns_more_tasks(study, tmp_path):
    folder = photos(tmp_path / "a", "red", "green")
    learnt = learn(study / SELF, folder, "more", execution=CPU)
    run = Path(learnt.run)
    for task in (0, 1):
        for name, source in (("learner", NONE), ("aligned", SELF)):
            old = load(study / source / f"task{task}" / f"{name}.safetensors")[0]
            new, record = load(run / f"task{task}" / f"{name}.safetensors")
            assert all(torch.equal(tensor, new[key]) for key, tensor in old.items())
            assert record.get("trained", "learner.safetensors") == "learner.safetensors"
    assert len(load(run / "task2/aligned.safetensors")[0]["memory.feature.mean"]) == 12
    again = learn(run, photos(tmp_path / "b", "violet", "orange"), "yet_more", execution=CPU)
    assert again.before == pytest.approx(learnt.after)
    before = cdl.load(again.run, task=1).predict_proba(images())
    np.testing.assert_array_equal(before, cdl.load(study / SELF).predict_proba(images()))


def test_a_student_with_its_teachers_statistics_learns_more_with_the_teacher(study, tmp_path):
    folder = photos(tmp_path / "a", "red", "green")
    with pytest.raises(CdlError, match="--teacher: is missing"):
        learn(study / LABELLED, folder, "more")
    tutor = Path(learn(study / TEACHER, folder, "more", execution=CPU).run)
    learnt = Path(learn(study / LABELLED, folder, "more", teacher=tutor, execution=CPU).run)
    record = read_json(learnt / "task2/aligned.json")
    assert record["inputs"]["teacher"] == read_json(tutor / "task2/aligned.json")["sha256"]
    assert record["inputs"]["before"] == read_json(learnt / "task1/learner.json")["sha256"]
    assert "teacher" not in read_json(learnt / "task2/learner.json")["inputs"]


def test_an_aligned_artifact_of_an_earlier_version_is_no_trained_one(study, monkeypatch):
    from statistics_study import jobs_of

    folder = study / NONE / "task0"
    for name in ("safetensors", "json"):
        shutil.copyfile(folder / f"aligned.{name}", folder / f"learner.{name}")
    monkeypatch.chdir(study)
    jobs = jobs_of()
    state_of = States(jobs)
    key = {"dataset": "digits", "method": "coda_prompt", "seed": "0", "task": "0"}
    job = jobs.find("train", key | {"learner": "student-vit_nano-q-vit_nano"})
    assert state_of(job).name != DONE and state_of(job).what.startswith("learner.alignment")
