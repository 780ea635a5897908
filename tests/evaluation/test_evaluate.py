"""Evaluation: rejected checkpoints, protected files, and evaluation of the first tasks."""

from pathlib import Path

import pytest

from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError


@pytest.fixture
def learnt(lab):
    """Return a lab and its trained undistilled student."""
    here = lab()
    student = here.run(role="student", teacher=None)
    here.learn_all(student)
    return here, student


@pytest.mark.parametrize("key", ["../precious", "/{}/precious"])
def test_a_state_named_by_a_record_is_removed_from_no_other_folder(learnt, key):
    here, student = learnt
    precious = here.folder / "precious.safetensors"
    precious.write_text("mine")
    path = Path(here.checkpoint(student, 1))
    tensors, metadata = artifacts.load(path)
    artifacts.save(path, tensors, metadata | {"state": key.format(str(here.folder)[1:])})
    with pytest.raises(CdlError, match="state: invalid key .*; expected 32 hexadecimal digits"):
        here.evaluate(student)
    assert precious.read_text() == "mine"
    assert not (here.folder / student.folder / "results.json").exists()


def test_logits_that_are_not_finite_reach_no_table(learnt):
    here, student = learnt
    path = Path(here.checkpoint(student, 1))
    tensors, metadata = artifacts.load(path)
    name = next(name for name in tensors if name.startswith("head.") and tensors[name].ndim == 2)
    tensors[name] = tensors[name].sign() * 3e38  # finite, but sums overflow
    artifacts.save(path, tensors, metadata)
    sentence = r"logits of .*task1/learner.safetensors, learnt in task 2 up to epoch 1, are not"
    with pytest.raises(CdlError, match=sentence):
        here.evaluate(student)
    assert not list((here.folder / student.folder).glob("results.json"))
    assert not list((here.folder / student.folder).glob("predictions.parquet"))


def test_evaluating_the_first_tasks_gives_their_part_of_all_results(learnt):
    here, student = learnt
    first, predictions = here.evaluate(student, tasks=1)
    whole, everything = here.evaluate(student)
    assert first["matrix"] == [whole["matrix"][0][:1]]
    assert first["metrics"]["final_average_accuracy"] == whole["matrix"][0][0]
    assert first["classes"] == whole["classes"][:6] and len(first["per_class"]) == 6
    own = everything[everything["task"] == 0]
    assert predictions["image"].tolist() == own["image"].tolist()
    assert set(predictions["predicted"]) <= set(first["classes"])
    assert len(first["checkpoints"]) == 1 and first["test_images"] == whole["test_images"][:1]


def test_unknown_classes_are_those_of_later_tasks(learnt):
    here, student = learnt
    plain, predictions = here.evaluate(student)
    found, again = here.evaluate(student, unknown=True)
    assert predictions.equals(again) and found["matrix"] == plain["matrix"]
    (after_first,) = found.pop("unknown")  # of two tasks
    assert 0 <= after_first["auroc"] <= 100 and 0 <= after_first["fpr95"] <= 100
    assert found["metrics"]["unknown_auroc"] == after_first["auroc"]
    assert plain["metrics"]["unknown_auroc"] is None and "unknown" not in plain


def test_negative_flips_are_not_less_than_what_an_update_loses(learnt):
    here, student = learnt
    found, _ = here.evaluate(student)
    (first, _), (last, _) = found["matrix"]
    assert found["metrics"]["negative_flips"] >= first - last - 1e-9 > 0
