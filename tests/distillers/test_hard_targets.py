"""`kd` with the teacher's most likely class as target, the control for its probabilities."""

from dataclasses import replace

import pytest
import torch
from lab import make_grid
from torch.nn import functional as F
from toys import TASKS, batch, pair

from cdl.runtime import artifacts
from cdl.study.configuration import ConfigError
from cdl.study.specifications import specification

LABELLED = 2


def losses(toy_backbone, **options):
    """Losses of a batch with two labelled images; logits of student and teacher in the task."""
    student, teacher = pair(toy_backbone, "l2p", "kd", options.items())
    images, labels = batch(6)
    query = student.backbone.query(images)
    taught = teacher(images, query, 0, TASKS[0])
    output = student(images, query, 0)
    found = student.losses(output, taught, labels[:LABELLED], TASKS[0])
    return found, output.logits[:, TASKS[0]], taught.logits, labels


def test_the_loss_is_the_cross_entropy_with_the_teachers_best_class_of_all_images(toy_backbone):
    found, student, teacher, labels = losses(toy_backbone, targets="hard", alpha=0.3)
    expected = -F.log_softmax(student, 1).gather(1, teacher.argmax(1)[:, None]).mean()
    torch.testing.assert_close(found["soft"], 0.3 * expected)
    torch.testing.assert_close(
        found["ce"], 0.7 * F.cross_entropy(student[:LABELLED], labels[:LABELLED])
    )


def test_the_temperature_has_no_effect_and_soft_targets_are_the_default(toy_backbone):
    cold, hot = (losses(toy_backbone, targets="hard", temperature=t)[0] for t in (1.0, 9.0))
    assert torch.equal(cold["soft"], hot["soft"])
    soft, plain = losses(toy_backbone, targets="soft")[0], losses(toy_backbone)[0]
    assert torch.equal(soft["soft"], plain["soft"])
    assert not torch.isclose(soft["soft"], losses(toy_backbone, targets="hard")[0]["soft"])


def test_images_on_which_the_teacher_is_unsure_count_as_zero(toy_backbone):
    _, student, teacher, _ = losses(toy_backbone)
    level = float(teacher.softmax(1).amax(1).median())  # the median itself is not above it
    found = losses(toy_backbone, targets="hard", alpha=1.0, confidence=level)[0]
    sure = teacher.softmax(1).amax(1) > level
    rows = F.cross_entropy(student, teacher.argmax(1), reduction="none")
    assert 0 < sure.sum() < len(sure)
    torch.testing.assert_close(found["soft"], rows[sure].sum() / len(rows))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("kd", {"targets": "soft"}),
        ("kd", {"targets": "hard"}),
        ("kd", {"standardize": True}),
        ("dkd", {}),
        ("dist", {}),
    ],
)
def test_images_without_an_answer_change_nothing(toy_backbone, name, options):
    student, teacher = pair(toy_backbone, "l2p", name, options.items())
    images, labels = batch(6)
    query = student.backbone.query(images)
    taught = teacher(images, query, 0, TASKS[0])
    gaps = taught.logits.clone()
    gaps[[1, 4]] = torch.nan  # one with and one without a label
    output = student(images, query, 0)
    logits = output.logits
    found = student.losses(output, replace(taught, logits=gaps), labels[:LABELLED], TASKS[0])
    (gradient,) = torch.autograd.grad(found["soft"], logits, retain_graph=True)
    assert gradient[[0, 2, 3, 5]].abs().amax(1).min() > 0 and gradient.isfinite().all()
    assert gradient[[1, 4]].abs().max() == 0
    if name != "dist":  # which correlates classes over the batch
        kept = [0, 2, 3, 5]
        part = replace(output, logits=logits[kept], tokens=output.tokens[kept])
        alone = student.losses(part, replace(taught, logits=gaps[kept]), labels[:1], TASKS[0])
        torch.testing.assert_close(found["soft"] * 6, alone["soft"] * 4)


def test_a_solve_takes_them_too(lab):
    grid = {
        "methods": ["ranpac"],
        "bounds": [],
        "distillers": ["none", {"block": "kd", "variant": "hard", "targets": "hard", "alpha": 1.0}],
    }
    made = lab({"grid": grid, "methods": {"ranpac": {"projection": 32}}})
    run = made.student("kd")
    made.learn_all(run)
    state, _ = artifacts.load(made.checkpoint(run, run.n_tasks - 1))
    counts = state["memory.counts"]
    assert torch.equal(counts, counts.round())  # sums of ones and zeros


def test_specifications_name_the_targets():
    hard = {"block": "kd", "variant": "hard", "targets": "hard"}
    made = make_grid({"grid": {"distillers": ["none", "kd", hard]}})
    specs = [specification(made, run).distiller for run in made.runs if run.teacher]
    assert [spec.options["targets"] for spec in specs] == ["soft", "hard"]


def test_z_scores_are_refused():
    with pytest.raises(ConfigError, match=r"^distillers\.kd\.standardize: invalid value True; .*"):
        make_grid({"distillers": {"kd": {"targets": "hard", "standardize": True}}})
