"""The draw of labelled images, and batches of labelled and unlabelled images."""

from dataclasses import replace

import pytest
import torch

from cdl.data.batches import Batches
from cdl.data.labels import UNLABELLED, known_labels
from cdl.data.packed import JoinedPixels, Pixels
from cdl.data.views import Views
from cdl.runtime.errors import CdlError
from cdl.spec import Labels

LABELS = torch.tensor([4, 5, 6]).repeat(20)[torch.randperm(60, generator=torch.manual_seed(0))]


def known(given, seed=0, order=range(7), labels=LABELS):
    return known_labels(labels, given and Labels(**given), seed, order)


def test_labels_are_true_balanced_and_nested():
    sets = [known({"per_class": n}) != UNLABELLED for n in (1, 5, 10)]
    for n, has in zip((1, 5, 10), sets, strict=True):
        assert torch.bincount(LABELS[has]).tolist()[4:] == [n] * 3
        assert torch.equal(known({"per_class": n})[has], LABELS[has])
    assert (sets[0] <= sets[1]).all() and (sets[1] <= sets[2]).all()
    assert torch.equal(known({"fraction": 0.25}) != UNLABELLED, sets[1])
    assert (known({"fraction": 0.001}) != UNLABELLED).sum() == 3
    assert not torch.equal(known({"per_class": 5}, seed=1), known({"per_class": 5}))
    assert torch.equal(known(None), LABELS)


def test_labels_with_a_seed_of_their_own_are_the_same_images_for_every_seed_and_class_order():
    own, other = ({"per_class": 5, "seed": seed} for seed in (3, 4))
    chosen = known(own) != UNLABELLED
    assert torch.equal(known(own, seed=1) != UNLABELLED, chosen)
    assert not torch.equal(known(other) != UNLABELLED, chosen)
    assert torch.equal(known(own), known({"per_class": 5}, seed=3))  # in the natural order
    order = [6, 5, 4, 0, 1, 2, 3]  # the classes 4, 5 and 6 are learnt first, in reverse
    positions = torch.tensor([order.index(label) for label in range(7)])[LABELS]
    moved = known(own, order=order, labels=positions) != UNLABELLED
    assert torch.equal(moved, chosen)
    moved = known({"per_class": 5}, order=order, labels=positions) != UNLABELLED
    assert not torch.equal(moved, known({"per_class": 5}) != UNLABELLED)


def test_more_labels_than_images_are_refused():
    with pytest.raises(
        CdlError, match=r"labels\.per_class: 21 is too large: a class has 20 training examples"
    ):
        known({"per_class": 21})


def batches(labels, **options):
    flat = torch.arange(60 * 192, dtype=torch.int64).remainder(256).to(torch.uint8)
    sizes = torch.full((60, 2), 8)
    which = torch.arange(60)
    pixels = Pixels(flat, which * 192, sizes, indices=which, keys=which)
    return Batches(pixels, labels, Views(8), 0, 0, **options)


@pytest.mark.parametrize("taught", [False, True])
def test_an_epoch_is_one_pass_over_the_larger_kind(taught):
    labels = known({"per_class": 2})  # 6 images with a label, 54 without
    made = batches(labels, batch_size=4, unlabelled=8, taught=taught)
    assert len(made) == 6
    first, again, next_one = (list(made(epoch)) for epoch in (0, 0, 1))
    assert len(first) == 6
    for batch, same in zip(first, again, strict=True):
        assert len(batch.views) == (12 if taught else 4)
        assert torch.equal(batch.labels, labels[batch.positions[:4]])
        assert (labels[batch.positions[4:]] == UNLABELLED).all()
        assert torch.equal(batch.positions, same.positions)
    own = torch.cat([batch.positions[:4] for batch in first])
    assert torch.bincount(own, minlength=60)[labels != UNLABELLED].tolist() == [4] * 6
    assert not torch.equal(own, torch.cat([batch.positions[:4] for batch in next_one]))
    if taught:
        unlabelled = torch.cat([batch.positions[4:] for batch in first])
        assert len(unlabelled.unique()) == len(unlabelled) == 48


def test_the_labelled_kind_may_be_the_larger_one():
    made = batches(known({"per_class": 16}), batch_size=8, unlabelled=8, taught=True)
    assert len(made) == 6
    found = list(made(0))
    assert len(torch.cat([batch.positions[:8] for batch in found]).unique()) == 48
    unlabelled = torch.cat([batch.positions[8:] for batch in found])
    visits = torch.bincount(unlabelled, minlength=60)
    assert visits[known({"per_class": 16}) == UNLABELLED].tolist() == [4] * 12


def test_images_of_two_sources_are_one_task():
    """Images of the second are larger and last in each batch; every image is seen."""
    own = batches(LABELS, batch_size=7)
    flat = torch.randint(0, 256, (10 * 300,), generator=torch.manual_seed(1)).to(torch.uint8)
    sizes = torch.full((10, 2), 10)
    which = torch.arange(10)
    unlabelled = Pixels(flat, which * 300, sizes, indices=which, keys=which + 60)
    labels = torch.cat([known({"per_class": 3}), torch.full((10,), UNLABELLED)])
    both = replace(own, pixels=JoinedPixels(own.pixels, unlabelled), labels=labels)
    seen = list(both.all_images(0))
    assert sorted(torch.cat([batch.positions for batch in seen]).tolist()) == list(range(70))
    alone = {
        p: view
        for b in own.all_images(0)
        for p, view in zip(b.positions.tolist(), b.views, strict=True)
    }
    for batch in seen:
        for position, view in zip(batch.positions.tolist(), batch.views, strict=True):
            assert position >= 60 or torch.equal(view, alone[position])
    for batch in replace(both, unlabelled=6, taught=True)(0):
        assert torch.equal(batch.labels, labels[batch.positions[:7]])
        assert (labels[batch.positions[7:]] == UNLABELLED).all()
        assert batch.positions[7:].ge(60).long().diff().ge(0).all()


def test_every_image_is_seen_once_whatever_its_label():
    plain, few = (batches(labels, batch_size=7) for labels in (LABELS, known({"per_class": 1})))
    for whole, part in zip(plain.all_images(2), few.all_images(2), strict=True):
        assert torch.equal(whole.views, part.views)
        assert torch.equal(whole.positions, part.positions)
        assert len(part.labels) == 0
