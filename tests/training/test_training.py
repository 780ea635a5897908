"""The training loop, its schedule, artifacts and metrics."""

import math

import numpy as np
import pytest
import torch
from toys import TASKS, batch, learner

from cdl.data.batches import Batch
from cdl.evaluation.metrics import metrics
from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError
from cdl.training.checkpointing import State
from cdl.training.loop import learning_rate, per_epoch, train_task

TRAINING = {"epochs": 2, "lr": 0.01, "betas": (0.9, 0.999), "schedule": "cosine"}


def learn(student, batches, **changes):
    return train_task(
        student,
        lambda epoch: [Batch(*made, epoch, torch.arange(len(made[0]))) for made in batches(epoch)],
        query=lambda made: student.backbone.query(made.views),
        teacher=None,
        task=0,
        classes=TASKS[0],
        **TRAINING | changes,
    )


def test_learning_lowers_the_loss_and_moves_only_what_learns(toy_backbone):
    student = learner(toy_backbone(), "coda_prompt")
    frozen = {k: v.clone() for k, v in student.backbone.state_dict().items()}
    images, labels = batch(n=8)
    history = learn(student, lambda epoch: [(images, labels)] * 10)
    assert history["ce"].iloc[-1] < history["ce"].iloc[0]
    assert all(torch.equal(frozen[k], v) for k, v in student.backbone.state_dict().items())
    head = student.head.linear.weight
    untouched = learner(toy_backbone(), "coda_prompt").head.linear.weight
    later = slice(TASKS[0].stop, None)
    assert torch.equal(head[later], untouched[later])  # columns of later tasks are not trained


def test_the_loss_curve_is_tidy(toy_backbone):
    student = learner(toy_backbone(), "l2p")
    history = learn(student, lambda epoch: [batch(), batch(seed=1)])
    curve = per_epoch(history)
    assert list(curve.columns) == ["task", "epoch", "learning_rate", "part", "value"]
    assert set(curve["part"]) == {"ce", "prompt", "total"}
    assert len(curve) == 2 * 3
    first = curve[curve["epoch"] == 0].set_index("part")["value"]
    assert math.isclose(first["total"], first["ce"] + first["prompt"])


def test_a_last_update_that_no_loss_has_seen_is_checked(toy_backbone, tmp_path):
    student = learner(toy_backbone(), "l2p")
    student.head.linear.weight.register_hook(lambda gradient: gradient * math.nan)
    with State(str(tmp_path), {"job": 1}, minutes=60) as state:
        with pytest.raises(CdlError, match=r"head.linear.weight is not finite .*task 1, epoch 1;"):
            learn(student, lambda epoch: [batch()], epochs=1, state=state)
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_not_finite_names_task_epoch_batch_and_parts(toy_backbone):
    student = learner(toy_backbone(), "l2p")
    bad = batch()[0] * math.nan, batch()[1]
    with pytest.raises(CdlError, match=r"task 1, epoch 2, batch 2: ce nan, prompt nan"):
        learn(student, lambda epoch: [batch(), bad] if epoch else [batch(), batch()])


def test_the_schedule():
    clean = [learning_rate(e, 5, 1.0, "cosine") for e in range(5)]
    lagged = [learning_rate(e, 5, 1.0, "cosine_lagged") for e in range(5)]
    assert clean[0] == 1.0
    assert lagged == [1.0, *clean[:-1]]
    assert math.isclose(clean[-1], math.cos(0.495 * math.pi))
    assert learning_rate(3, 5, 0.1, "constant") == 0.1
    assert learning_rate(0, 1, 0.1, "cosine") == 0.1


def test_metrics_on_the_documented_matrix():
    matrix = np.zeros((4, 4))
    for t, row in enumerate([[90], [84, 88], [86, 90, 85], [80, 78, 79, 84]]):
        matrix[t, : t + 1] = row
    found = metrics(matrix, [10, 10, 10, 30])
    assert found["final_average_accuracy"] == 80.25
    assert found["average_incremental_accuracy"] == 85.8125
    assert found["learning_accuracy"] == 86.75
    assert found["forgetting_published"] == 6.5
    assert found["last_accuracy"] == pytest.approx((80 + 78 + 79 + 3 * 84) / 6)
    assert found["backward_transfer"] == pytest.approx(-8.667, abs=1e-3)
    assert found["forgetting_max"] == pytest.approx(9.333, abs=1e-3)


def test_metrics_of_one_task():
    found = metrics(np.array([[70.0]]), [5])
    assert found["final_average_accuracy"] == 70
    assert math.isnan(found["backward_transfer"])
    assert math.isnan(found["forgetting_max"])


@pytest.fixture
def artifact(tmp_path):
    path = tmp_path / "learner.safetensors"
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2, dtype=torch.float16)}
    artifacts.save(path, tensors, {"task": 1, "learner": {"training": {"epochs": 3}}})
    return path


def test_artifacts_round_trip_and_leave_no_temporary_file(artifact):
    tensors, metadata = artifacts.load(artifact, task=1)
    assert torch.equal(tensors["a"], torch.arange(6.0).view(2, 3))
    assert tensors["b"].dtype == torch.float16
    assert metadata["task"] == 1
    assert {p.name for p in artifact.parent.iterdir()} == {"learner.safetensors", "learner.json"}


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "remove", "no json"])
def test_damaged_artifacts_are_refused(artifact, damage):
    raw = bytearray(artifact.read_bytes())
    if damage == "truncate":
        artifact.write_bytes(raw[: len(raw) // 2])
    elif damage == "flip":
        raw[-3] ^= 8
        artifact.write_bytes(raw)
    elif damage == "empty":
        artifact.write_bytes(b"")
    elif damage == "remove":
        artifact.unlink()
    else:
        artifact.with_suffix(".json").write_text("{")
    with pytest.raises(CdlError, match="learner.*run again"):
        artifacts.load(artifact)


def test_an_artifact_of_another_configuration_is_refused_by_name(artifact):
    with pytest.raises(CdlError, match="with learner.training.epochs = 3, expected 5"):
        artifacts.load(artifact, learner={"training": {"epochs": 5}})
    with pytest.raises(CdlError, match="with task = 1, expected 0"):
        artifacts.load(artifact, task=0)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.json"
    artifacts.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        artifacts.write_json(path, {"a": math.nan})
    assert artifacts.read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
