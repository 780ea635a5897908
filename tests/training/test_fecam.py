"""FeCAM: distances with a covariance per class, few images, tasks, and what is refused."""

import numpy as np
import pytest
import torch
from lab import make_grid
from torch.nn import functional as F

from cdl.methods.fecam import FecamHead
from cdl.runtime import artifacts
from cdl.study.configuration import ConfigError

PAPER = {"tukey": 0.5, "alpha1": 1.0, "alpha2": 1.0}
VIT = {"tukey": None, "alpha1": 1.0, "alpha2": 0.0}


def head(width, n, tukey=None, alpha1=1.0, alpha2=1.0, scale=1.0):
    how = {"tukey": tukey, "alpha1": alpha1, "alpha2": alpha2, "scale": scale}
    return FecamHead(width, n, torch.Generator(), **how)


def rows(n, width, seed):
    source = torch.Generator().manual_seed(seed)
    mixed = torch.randn(n, width, generator=source) @ torch.randn(width, width, generator=source)
    return mixed + 2 * torch.randn(width, generator=source)


def distances(images, classes, tukey, alpha1, alpha2):
    """Squared distances [n, C] by the formulas of the paper, in float64."""

    def prepared(x):
        x = x.double().numpy()
        x = x if tukey is None else np.maximum(x, 0) ** tukey
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    found = []
    for own in map(prepared, classes):
        covariance = np.cov(own.T)
        off = ~np.eye(len(covariance), dtype=bool)
        shrunk = covariance + alpha1 * np.diag(covariance).mean() * np.eye(len(covariance))
        shrunk += alpha2 * covariance[off].mean() * off
        deviation = np.sqrt(np.diag(shrunk))
        inverse = np.linalg.inv(shrunk / np.outer(deviation, deviation))
        apart = prepared(images) - own.mean(0)
        found.append(np.einsum("nd,de,ne->n", apart, inverse, apart))
    return np.stack(found, axis=1)


@pytest.mark.parametrize("options", [PAPER, VIT, {"tukey": None, "alpha1": 9.0, "alpha2": 4.0}])
def test_the_logits_are_the_distances_of_the_paper(options):
    width, sizes = 8, (40, 5, 3)  # images of each class: more and fewer than the width
    classes, images = [rows(n, width, n) for n in sizes], rows(20, width, 0)
    tested = head(width, 1, **options, scale=2.0)
    tested.learn(tested.features(classes[0]), torch.ones(40, 1))
    tested.grow(2, torch.Generator())  # a second task with more classes
    targets = torch.zeros(8, 3)
    targets[:5, 1], targets[5:, 2] = 1, 1
    tested.learn(tested.features(torch.cat(classes[1:])), targets)
    expected = -2 * distances(images, classes, **options)
    np.testing.assert_allclose(tested(images).numpy(), expected, rtol=1e-4)
    twin = head(width, 0, **options, scale=2.0)
    twin.load_state_dict(tested.state_dict())
    assert torch.equal(twin(images), tested(images))


def test_soft_targets_weigh_images_as_repeated_images():
    images, soft = rows(6, 4, 1), torch.tensor([[2.0], [1], [1], [0], [3], [1]])
    weighed, repeated = head(4, 1), head(4, 1)
    weighed.learn(weighed.features(images), soft / 7)
    again = images.repeat_interleave(soft.flatten().long(), 0)
    repeated.learn(repeated.features(again), torch.ones(8, 1))
    torch.testing.assert_close(weighed(images), repeated(images), rtol=1e-4, atol=1e-5)


def test_a_class_of_one_image_has_euclidean_distances_and_none_is_never_predicted():
    images = rows(9, 5, 2)
    tested, targets = head(5, 3), torch.zeros(9, 3)
    targets[:8, 0], targets[8, 2] = 1, 1
    tested.learn(tested.features(images), targets)
    logits = tested(images)
    unit = F.normalize(images)
    torch.testing.assert_close(logits[:, 2], -(unit - unit[8]).square().sum(1))
    assert logits[8].argmax() == 2 and logits.isfinite().all()
    assert (logits[:, 1] < logits[:, [0, 2]].min()).all()


def test_a_direction_without_variance_has_no_distance():
    images = rows(40, 6, 3)
    images = images - images.mean(1, keepdim=True)  # as after a layer norm without weights
    for n in (40, 5):
        tested = head(6, 1)
        tested.learn(tested.features(images[:n]), torch.ones(n, 1))
        inverse = tested.precision[0].double()
        assert inverse.isfinite().all() and torch.linalg.eigvalsh(inverse)[-1] < 1e3


def study(distillers=("none",), tasks=2, **changes):
    grid = {"methods": ["fecam"], "distillers": list(distillers)}
    return {"grid": grid, "datasets": {"digits": {"tasks": tasks, **changes}}}


@pytest.mark.parametrize("few", [{}, {"labels": {"per_class": 1}}, {"images_per_class": 1}])
def test_unequal_tasks_are_learnt_evaluated_and_learnt_again(lab, few):
    here = lab(study(tasks=[5, 2, 3], **few))
    run = here.student("none")
    here.learn_all(run)
    state, record = artifacts.load(here.checkpoint(run, 2))
    before = artifacts.load(here.checkpoint(run, 1))[0]
    assert record["trainable_parameters"] == 0 and record["work"]["operations"] > 0
    for name in ("head.weight", "head.precision", "memory.deviations", "memory.counts"):
        assert len(state[name]) == 10 and torch.equal(state[name][:7], before[name])
    here.learn(run, 2)
    again, _ = artifacts.load(here.checkpoint(run, 2))
    assert all(torch.equal(tensor, again[name]) for name, tensor in state.items())
    results, _ = here.evaluate(run)
    assert results["metrics"]["final_average_accuracy"] > (20 if few else 50)  # chance is 10


def test_it_learns_from_a_teacher_and_from_its_own_answers(lab):
    few = {"labels": {"per_class": 5}, "images_per_class": 16}
    own = {"block": "none", "variant": "own", "methods": {"fecam": {"labels": "self"}}}
    here = lab(study(["none", own, "kd"], **few))
    means = {}
    for run in (run for run in here.grid.runs if run.role == "student"):
        here.learn_all(run)
        state, record = artifacts.load(here.checkpoint(run, 1))
        means[run.distiller.label] = state["head.weight"]
        assert state["head.precision"].isfinite().all()
        assert (record["seen"]["unlabelled"] > 0) == (run.distiller.label != "none")
    assert len(means) == 3
    plain = means.pop("none")
    assert not any(torch.equal(plain, other) for other in means.values())


def test_a_shrinkage_with_negative_distances_is_refused():
    message = r"fecam\.alpha2: invalid value 1.0; expected at most alpha1, 0.5: distances could be"
    with pytest.raises(ConfigError, match=message):
        make_grid(study() | {"methods": {"fecam": {"alpha1": 0.5}}})


def test_tasks_by_domain_are_refused(tmp_path):
    block = {"source": {"folder": {"path": str(tmp_path), "domains": True}}}
    block["tasks"] = {"by": "domain", "domains": ["photo", "sketch"]}
    message = r"methods\.fecam: invalid value 'tasks by domain'; expected tasks with different"
    with pytest.raises(ConfigError, match=message):
        make_grid(study(**block))
