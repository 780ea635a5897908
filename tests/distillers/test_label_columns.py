"""Cross-entropy with the label over the classes of the task, or over all classes seen so far."""

import pytest
import torch
from lab import make_grid
from torch.nn import functional as F
from toys import DISTILLERS, N_CLASSES, TASKS, batch, learner, pair

from cdl.distillers import DISTILLERS as REGISTERED
from cdl.study.configuration import ConfigError
from cdl.study.specifications import row, specification

SEEN = {"label_columns": "seen"}


def losses_of(toy_backbone, method, name, options):
    """Losses of a student in task 1, its output and the labels."""
    images, labels = batch(5, task=1)
    if REGISTERED[name].uses_teacher({"alpha": 0.5, "soft_weight": None}) and name != "none":
        student, teacher = pair(toy_backbone, method, name, options.items())
        query = student.backbone.query(images)
        taught = teacher(images, query, 1, TASKS[1], student.compared_blocks)
        given = taught.query
    else:
        student, taught, given = learner(toy_backbone(), method, name, options=options), None, None
        query = student.backbone.query(images)
    output = student.train()(images, query, 1, given, student.compared_blocks)
    return student, student.losses(output, taught, labels, TASKS[1]), output.logits, labels


@pytest.mark.parametrize("name", DISTILLERS)
def test_all_classes_seen_are_compared_with_the_label_and_by_default_those_of_the_task(
    toy_backbone, name
):
    for options, columns in (({}, TASKS[1]), (SEEN, slice(0, N_CLASSES))):
        student, found, logits, labels = losses_of(toy_backbone, "l2p", name, options)
        plain = F.cross_entropy(logits[:, columns], labels - columns.start)
        torch.testing.assert_close(found["ce"], (1 - student.distiller.alpha) * plain)
    found["ce"].backward()
    if student.distiller.alpha < 1:
        assert (student.head.linear.weight.grad.abs().sum(1) > 0).all()  # old columns learn, too


def test_the_soft_loss_does_not_change(toy_backbone):
    soft = [losses_of(toy_backbone, "l2p", "kd", own)[1]["soft"] for own in ({}, SEEN)]
    assert torch.equal(*soft)


def test_a_margin_is_subtracted_from_the_logit_of_the_label(toy_backbone):
    student, found, logits, labels = losses_of(toy_backbone, "ssiat", "none", SEEN)
    student.head.margin = 4.0
    images, _ = batch(5, task=1)
    output = student(images, None, 1)
    found = student.losses(output, None, labels, TASKS[1])
    shifted = output.logits - 4.0 * F.one_hot(labels, N_CLASSES)
    torch.testing.assert_close(found["ce"], F.cross_entropy(shifted, labels))


def variant(block, **options):
    return {"block": block, "variant": "seen", **options}


def test_a_variant_of_none_is_a_student_of_its_own_and_its_teacher_has_the_default():
    made = make_grid({"grid": {"distillers": ["none", variant("none", **SEEN), "kd"]}})
    found = {run.learner.split("-")[0]: run for run in made.runs}
    assert list(found) == ["teacher", "student", "student+seen", "kd"]
    own = {name: specification(made, run).distiller.options for name, run in found.items()}
    columns = {name: options["label_columns"] for name, options in own.items()}
    assert columns == {"teacher": "task", "student": "task", "student+seen": "seen", "kd": "task"}
    rows = {name: row(made, run) for name, run in found.items()}
    assert rows["student+seen"]["distiller_options"] == 'label_columns="seen"'
    assert rows["teacher"]["distiller_options"] == rows["student"]["distiller_options"] == ""
    assert made.trained(found["student+seen"]) == found["student+seen"]


@pytest.mark.parametrize(
    ("grid", "sentence"),
    [
        (
            {"distillers": [variant("none", label_columns="task")]},
            "grid.distillers: the variant 'seen' of none overrides nothing; write none",
        ),
        (
            {"distillers": [variant("none", label_columns="all")]},
            r"grid.distillers.seen.label_columns: 'all' is not one of \['task', 'seen'\]",
        ),
        (
            {"methods": ["ranpac"], "distillers": [variant("none", **SEEN)]},
            r"^distillers.none\+seen.label_columns: invalid value 'seen'; expected task: ranpac",
        ),
    ],
)
def test_what_compares_nothing_else_is_refused(grid, sentence):
    with pytest.raises(ConfigError, match=sentence):
        make_grid({"grid": {"methods": ["coda_prompt"], "bounds": [], **grid}})
