"""RanPAC: sums over tasks and one solve per task, with and without a teacher."""

import pytest
import torch
from lab import make_grid
from torch.nn import functional as F

from cdl.evaluation import features
from cdl.methods.heads import PrototypeHead
from cdl.runtime import artifacts
from cdl.study.configuration import ConfigError
from cdl.training.ranpac import (
    RIDGES,
    accumulate,
    best_ridge,
    mean_weights,
    ridge_weights,
    validation_losses,
)


def ranpac(distillers=("none", "kd"), **options):
    options = {"projection": 64, **options}
    return {
        "methods": {"ranpac": {"logit_scale": 10.0, **options}},
        "grid": {"methods": ["ranpac"], "distillers": list(distillers)},
    }


def task(first, last, n=30, width=6):
    source = torch.Generator().manual_seed(last)
    labels = torch.randint(first, last, (n,), generator=source)
    return torch.randn(n, width, generator=source) + labels[:, None], F.one_hot(labels, last)


def test_tasks_one_by_one_are_all_tasks_at_once():
    (features, targets), (more, others) = task(0, 3), task(3, 5)
    by_task = accumulate(accumulate({}, features, targets.float()), more, others.float())
    padded = torch.cat([F.pad(targets, (0, 2)), others]).float()
    at_once = accumulate({}, torch.cat([features, more]), padded)
    for name, sums in at_once.items():
        torch.testing.assert_close(by_task[name], sums)


def test_the_weights_are_those_of_a_ridge_regression():
    features, targets = task(0, 3)
    sums = accumulate({}, features, targets.float())
    weight = ridge_weights(sums["gram"], sums["prototypes"], 0.5).requires_grad_(True)
    error = (features @ weight.mT - targets).square().sum() + 0.5 * weight.square().sum()
    (gradient,) = torch.autograd.grad(error, weight)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-3, rtol=0)
    assert validation_losses(features, targets.float()).shape == (17,)


@pytest.mark.parametrize("width", [5, 50])  # fewer and more than the 32 images that are fitted
def test_a_ridge_is_judged_alike_by_either_system(width):
    source = torch.Generator().manual_seed(0)
    features = torch.randn(40, width, generator=source, dtype=torch.float64)
    targets = torch.rand(40, 3, generator=source, dtype=torch.float64)
    fit, rest = features[:32], features[32:]
    for loss, ridge in zip(validation_losses(features, targets), RIDGES, strict=True):
        if ridge > 1e-4:  # smaller ridges: the system is close to singular
            weight = ridge_weights(fit.mT @ fit, fit.mT @ targets[:32], ridge)
            expected = (rest @ weight.mT - targets[32:]).square().mean()
            torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)


def test_class_means_and_their_cosines():
    features, targets = task(0, 3)
    weight = mean_weights(accumulate({}, features, targets.float()))
    torch.testing.assert_close(weight[1], features[targets[:, 1].bool()].mean(0))
    head = PrototypeHead(6, 3, torch.Generator(), None, "mean")
    head.weight.copy_(weight)
    expected = F.cosine_similarity(features[:, None], weight[None], dim=2)
    torch.testing.assert_close(head(features), expected)


def test_as_released_the_logits_are_cosines_with_the_weights_of_the_ridge():
    tokens = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    weight = torch.randn(4, 16, generator=torch.Generator().manual_seed(1))
    logits = {}
    for released in (False, True):
        source = torch.Generator().manual_seed(2)
        head = PrototypeHead(6, 4, source, 16, "ridge", scale=10.0, cosine_ridge=released)
        head.weight.copy_(weight)
        logits[released] = head(tokens)
    features = F.relu(tokens @ head.projection)
    torch.testing.assert_close(logits[False], 10 * features @ weight.mT)
    norms = features.norm(dim=1, keepdim=True) * weight.norm(dim=1)
    torch.testing.assert_close(logits[True], logits[False] / norms)
    assert (logits[True].argmax(1) != logits[False].argmax(1)).any()


@pytest.mark.parametrize("prototypes", ["ridge", "mean"])
def test_it_learns_without_a_gradient_step(lab, prototypes):
    here = lab(ranpac(prototypes=prototypes))
    run = here.student("none")
    here.learn_all(run)
    first, last = (artifacts.load(here.checkpoint(run, task)) for task in range(2))
    assert last[1]["trainable_parameters"] == 0
    assert first[0]["memory.prototypes"].shape == (64, 6)
    assert last[0]["memory.prototypes"].shape == (64, 10)
    assert torch.equal(first[0]["head.projection"], last[0]["head.projection"])
    results, _ = here.evaluate(run)
    assert results["metrics"]["final_average_accuracy"] > 50


def test_the_ridge_is_chosen_over_all_tasks_if_asked(lab):
    here = lab(ranpac(ridge_images="all"))
    run = here.student("none")
    here.learn_all(run)
    loaded = [artifacts.load(here.checkpoint(run, task)) for task in range(2)]
    (_, first), (state, last) = loaded
    total = torch.tensor(first["ridge_errors"]) + torch.tensor(last["ridge_errors"])
    torch.testing.assert_close(state["memory.errors"].float(), total)
    gram, sums = state["memory.gram"], state["memory.prototypes"]
    expected = ridge_weights(gram, sums, RIDGES[best_ridge(total, gram)])
    torch.testing.assert_close(state["head.weight"], expected)


def test_a_student_learns_from_soft_labels_and_with_none_of_them_is_alone(lab):
    weights = []
    changes = ranpac(("none", {"block": "kd", "variant": "zero", "alpha": 0.0}, "kd"))
    here = lab(changes)
    students = [run for run in here.grid.runs if run.role == "student"]
    for run in sorted(students, key=lambda run: run.distiller.label):
        here.learn_all(run)
        weights.append(artifacts.load(here.checkpoint(run, 1))[0]["head.weight"])
    kd, zero, alone = weights
    torch.testing.assert_close(zero, alone)
    assert not torch.allclose(kd, alone)


def test_soft_labels_from_a_cache_are_those_of_the_teacher_itself(lab):
    weights = []
    for name, compute in (
        ("cached", {"targets": "cached", "targets_dtype": "float32"}),
        ("online", {"targets": "online"}),
    ):
        here = lab({**ranpac(), "name": name, "compute": compute})
        run = here.student("kd")
        here.learn_all(run)
        weights.append(artifacts.load(here.checkpoint(run, 1))[0]["head.weight"])
    assert torch.equal(*weights)


def test_a_solve_that_no_machine_could_do_is_refused():
    with pytest.raises(ConfigError, match=r"methods\.ranpac\.projection: invalid value 1000000"):
        make_grid(ranpac(projection=1_000_000))


@pytest.mark.parametrize("kd", ["dkd", "dist", "fitnets", "cls_feature", "kd_prompt", "cdl_prompt"])
def test_other_distillers_are_refused_by_name(kd):
    with pytest.raises(ConfigError, match=rf"distillers\.{kd}: invalid value 'methods\.ranpac'"):
        make_grid(ranpac(["none", kd]))


HEADS = {"methods": {"head_only": {}}, "grid": {"methods": ["head_only"]}}
HEADS["grid"]["distillers"] = ["none", "kd"]


@pytest.mark.parametrize("changes", [ranpac(), HEADS], ids=["ranpac", "head_only"])
def test_one_reading_of_the_test_images_serves_all_stages(lab, monkeypatch, changes):
    here = lab(changes)
    run = here.student("kd")
    here.learn_all(run)
    (once, predictions), computed = here.evaluate(run), []
    read = features.over_test_images

    def counted(*given):
        computed.append(given)
        return read(*given)

    monkeypatch.setattr(features, "over_test_images", counted)
    again, same = here.evaluate(run)
    assert len(computed) == 1
    assert once["matrix"] == again["matrix"]
    assert once["metrics"] == pytest.approx(again["metrics"])
    assert predictions["predicted"].equals(same["predicted"])


def test_a_ridge_below_the_rounding_of_the_sums_is_not_taken():
    source = torch.Generator().manual_seed(0)
    features = 100 * torch.rand(20, 400, generator=source)  # fewer images than features: singular
    labels = torch.arange(20) % 4
    targets = F.one_hot(labels, 4).float()
    sums = accumulate({}, features, targets)
    losses = torch.ones(len(RIDGES))
    losses[0] = 0.5  # the smallest ridge has the lowest loss
    chosen = best_ridge(losses, sums["gram"])
    assert RIDGES[chosen] >= torch.finfo(torch.float32).eps * float(sums["gram"].trace())
    shaken = sums["gram"] * (1 + 1e-7 * torch.randn(400, 400, generator=source))
    weights = [
        ridge_weights(gram, sums["prototypes"], RIDGES[chosen]) for gram in (sums["gram"], shaken)
    ]
    torch.testing.assert_close(*weights, rtol=0.1, atol=0.1 * float(weights[0].abs().max()))
    assert (features @ weights[1].mT).argmax(1).equal(labels)
    losses[12] = 0.1  # a safe ridge with the lowest loss is selected
    assert best_ridge(losses, sums["gram"]) == 12
    assert best_ridge(losses, 1e30 * sums["gram"]) == len(RIDGES) - 1
