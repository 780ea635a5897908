"""Fresh views of images that are drawn several times in an epoch, and what a learner has seen."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lab import make_grid

from cdl.data.batches import Batches, occurrences
from cdl.data.labels import UNLABELLED
from cdl.data.packed import Pixels
from cdl.data.views import Views
from cdl.spec import LearnerSpec
from cdl.study.configuration import ConfigError
from cdl.study.specifications import protocol, specification

FEW = {"block": "digits", "variant": "few", "labels": {"per_class": 2}, "teacher_labels": "all"}
ONLINE = {"protocol": {"views": "per_draw"}, "compute": {"targets": "online"}}


@given(st.lists(st.integers(0, 6), min_size=1))
def test_occurrences_are_counted_from_the_start(values):
    before = Counter()
    for value, found in zip(values, occurrences(torch.tensor(values)).tolist(), strict=True):
        assert found == before[value]
        before[value] += 1


def batches(fresh, batch_size=4):
    """Batches of twelve images, of which three have a label."""
    flat = torch.randint(0, 256, (12 * 300,), generator=torch.manual_seed(0)).to(torch.uint8)
    which = torch.arange(12)
    pixels = Pixels(flat, which * 300, torch.full((12, 2), 10), indices=which, keys=which + 50)
    labels = torch.full((12,), UNLABELLED)
    labels[:3] = torch.tensor([0, 1, 2])
    return Batches(
        pixels, labels, Views(8), 0, 0, batch_size, unlabelled=3, taught=True, fresh=fresh
    )


def seen(made, epoch):
    """Views by position, in the order in which they are drawn."""
    found = {}
    for batch in made(epoch):
        for position, view in zip(batch.positions.tolist(), batch.views, strict=True):
            found.setdefault(position, []).append(view)
    return found


def test_every_draw_has_a_view_of_its_own_and_the_first_is_that_of_the_epoch():
    old, new, again = seen(batches(False), 1), seen(batches(True), 1), seen(batches(True), 1)
    drawn = {position: len(views) for position, views in old.items()}
    assert [drawn[p] for p in range(3)] == [4, 4, 4]  # twelve labelled places, more than one a step
    assert all(n == 1 for position, n in drawn.items() if position >= 3)
    for position, views in new.items():
        assert len(views) == drawn[position]
        assert torch.equal(views[0], old[position][0])
        assert all(torch.equal(view, old[position][0]) for view in old[position])
        assert len({view.numpy().tobytes() for view in views}) == len(views)
        assert all(map(torch.equal, views, again[position]))
    first, later = (seen(batches(True), epoch)[0][1] for epoch in (0, 1))
    assert not torch.equal(first, later)


def test_all_images_once_have_the_views_of_the_epoch():
    for one, other in zip(batches(False).all_images(0), batches(True).all_images(0), strict=True):
        assert torch.equal(one.views, other.views)


def grid(*datasets, **changes):
    return make_grid({"grid": {"datasets": list(datasets)}, **changes})


def test_only_learners_that_draw_an_image_again_are_specified_otherwise():
    plain = grid("digits", FEW, compute={"targets": "online"})
    fresh = grid("digits", FEW, **ONLINE)
    for run, other in zip(plain.runs, fresh.runs, strict=True):
        before, after = specification(plain, run), specification(fresh, other)
        few = run.dataset == "digits+few" and run.role == "student"
        assert after.views == ("per_draw" if few else None)
        assert (before == after) == (not few)
        assert LearnerSpec.from_json(after.to_json()) == after
        assert protocol(plain, run)["protocol"]["views"] == "per_epoch"
        assert protocol(fresh, other)["protocol"]["views"] == "per_draw"


def test_caches_of_one_view_an_epoch_are_refused():
    with pytest.raises(ConfigError, match=r"^protocol\.views: .*digits\+few\.labels.*online"):
        grid("digits", FEW, protocol={"views": "per_draw"})
    assert grid("digits", protocol={"views": "per_draw"}).cached  # all images are drawn once


def test_results_tell_the_views_and_images_that_each_learner_saw(lab):
    given = {"datasets": [FEW], "distillers": ["none", "kd"]}
    made = lab({"grid": given, "training": {"epochs": 2, "unlabelled_ratio": 2.0}, **ONLINE})
    found = {}
    for run in (r for r in made.grid.runs if r.role == "student"):
        made.learn_all(run)
        found[run.distiller.name] = made.evaluate(run)[0]["seen"]
    images = 10 * made.grid.config["datasets"]["digits"]["images_per_class"]
    assert found["none"]["labelled"] == found["kd"]["labelled"] == 20
    assert found["none"]["unlabelled"] == 0 and found["kd"]["unlabelled"] == images - 20
    assert found["kd"]["views"] == 3 * found["none"]["views"] > 0
