"""Softened labels without a teacher (Tf-KD)."""

import pytest
import torch
from lab import make_grid
from torch.nn import functional as F
from toys import TASKS, batch, learner

from cdl.distillers.kd import kd_loss
from cdl.distillers.tf_kd import virtual_logits
from cdl.study.configuration import ConfigError
from cdl.study.specifications import specification


def scores(n=6, classes=5, seed=0):
    return torch.randn(n, classes, generator=torch.Generator().manual_seed(seed)).double() * 3


@pytest.mark.parametrize(("correct", "classes"), [(0.9, 5), (0.4, 3), (0.7, 2)])
def test_at_temperature_one_its_gradient_is_that_of_label_smoothing(correct, classes):
    labels = torch.arange(6) % classes
    ours, reference = (scores(classes=classes).requires_grad_() for _ in range(2))
    kd_loss(ours, virtual_logits(labels, classes, correct).double(), 1.0).backward()
    smoothing = (1 - correct) * classes / (classes - 1)
    F.cross_entropy(reference, labels, label_smoothing=smoothing).backward()
    torch.testing.assert_close(ours.grad, reference.grad)


def test_a_student_without_a_teacher_has_both_losses_of_its_labelled_images(toy_backbone):
    images, labels = batch()
    query = (backbone := toy_backbone()).query(images)
    options = {"alpha": 0.25, "temperature": 3.0, "correct": 0.8}
    losses, columns = {}, TASKS[0]
    for name, chosen in {"none": {}, "tf_kd": options}.items():
        student = learner(backbone, "l2p", name, options=chosen).train()
        output = student(images, query, 0, None, student.compared_blocks)
        losses[name] = student.losses(output, None, labels[:2], columns)
    torch.testing.assert_close(losses["tf_kd"]["ce"], 0.75 * losses["none"]["ce"])
    probabilities = torch.full((2, columns.stop - columns.start), 0.2)
    probabilities /= probabilities.shape[1] - 1
    probabilities[torch.arange(2), labels[:2]] = 0.8
    softened = probabilities ** (1 / 3)
    softened /= softened.sum(1, keepdim=True)
    own = (output.logits[:2, columns] / 3).log_softmax(1)
    expected = 0.25 * 9 * (softened * (softened.log() - own)).sum(1).mean()
    torch.testing.assert_close(losses["tf_kd"]["soft"], expected)


def test_it_is_planned_without_a_teacher():
    made = make_grid({"grid": {"distillers": ["none", "tf_kd"], "bounds": []}})
    run = next(run for run in made.runs if run.distiller.name == "tf_kd")
    assert run.learner == "tf_kd-vit_nano-q-vit_nano"
    assert specification(made, run).teacher is None and run.rule == "train"


@pytest.mark.parametrize(
    ("options", "tasks", "message"),
    [
        ({"correct": 0.2}, 2, r"tf_kd.correct: invalid value 0.2; expected above 0.2, the share"),
        ({}, [9, 1], r"tasks: invalid value .9, 1.; expected two classes or more"),
    ],
)
def test_a_virtual_teacher_that_knows_nothing_is_refused(options, tasks, message):
    entries = {"distillers": ["tf_kd"], "bounds": []}
    changes = {"datasets": {"digits": {"tasks": tasks}}, "distillers": {"tf_kd": options}}
    with pytest.raises(ConfigError, match=message):
        make_grid({"grid": entries, **changes})
