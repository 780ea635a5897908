"""Validation images: held out of training, class by class, by content."""

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cdl.data.packing import prepare
from cdl.data.sources.cifar20 import read as cifar20
from cdl.data.sources.heldout import hold_out, remaining
from cdl.data.sources.items import Item, Source
from cdl.data.sources.summary import summarise
from cdl.runtime.errors import CdlError, Unreadable


def made(shuffled=False):
    """Two classes of eight training and three test images; training image 7 of each is the 0th."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 11, 4, 4, 3), dtype=np.uint8)
    pixels[:, 7] = pixels[:, 0]
    items = [
        Item("train" if i < 8 else "test", c, f"{c}/{i}", pixels[c, i].copy)
        for c in range(2)
        for i in range(11)
    ]
    if shuffled:
        random.Random(0).shuffle(items)
        items = [replace(item, name=f"other{item.name}") for item in items]
    return Source(("ant", "bee"), items)


def contents(source, split):
    return {(item.label, item.read().tobytes()) for item in source.items if item.split == split}


@pytest.mark.parametrize("seed", range(4))
def test_the_draw_depends_on_pixels_and_includes_all_copies(seed):
    source = made()
    train, test = (contents(source, split) for split in ("train", "test"))
    checked = hold_out(source, 3, seed, evaluated=True)
    held, kept = contents(checked, "test"), contents(checked, "train")
    assert Counter(label for label, _ in held) == {0: 3, 1: 3}
    assert held | kept == train and not held & kept and not held & test
    again = hold_out(made(shuffled=True), 3, seed, evaluated=True)
    assert contents(again, "test") == held
    tested = hold_out(source, 3, seed)
    assert contents(tested, "test") == test and contents(tested, "train") == kept
    fewer = contents(hold_out(source, 1, seed, evaluated=True), "test")
    assert fewer < held  # nested


def test_another_seed_draws_others_and_every_class_keeps_a_training_image():
    drawn = {frozenset(contents(hold_out(made(), 3, s, True), "test")) for s in range(4)}
    assert len(drawn) > 1
    with pytest.raises(
        CdlError, match="7 is too large: class 'ant' has 7 different training examples"
    ):
        hold_out(made(), 7)


def test_test_images_are_not_decoded_if_validation_images_are_evaluated():
    def never():
        raise AssertionError("a test image was read")

    source = made()
    items = [i if i.split == "train" else replace(i, read=never) for i in source.items]
    checked = hold_out(replace(source, items=items), 2, evaluated=True)
    assert len([item.read() for item in checked.items]) == 16


def test_unreadable_images_are_left_for_packing_to_report():
    def broken():
        raise Unreadable("0/1 is broken")

    source = made()
    items = [replace(i, read=broken) if i.name == "0/1" else i for i in source.items]
    assert "0/1" in {item.name for item in hold_out(replace(source, items=items), 2).items}


def test_a_packed_folder_for_validation_has_no_test_image(tmp_path):
    held = {"per_class": 20, "seed": 0}
    prepare(tmp_path / "plain", {"name": "digits"})
    prepare(tmp_path / "v", {"name": "digits"}, validation=held | {"evaluated": True})
    prepare(tmp_path / "t", {"name": "digits"}, validation=held | {"evaluated": False})
    names = {
        (folder, split): set(pd.read_parquet(tmp_path / folder / f"{split}.parquet")["name"])
        for folder in ("plain", "v", "t")
        for split in ("train", "test")
    }
    assert names["v", "test"] < names["plain", "train"]
    assert (
        names["v", "train"] == names["t", "train"] == names["plain", "train"] - names["v", "test"]
    )
    assert names["t", "test"] == names["plain", "test"]
    whole = summarise({"name": "digits"}, str)
    found = remaining(whole, 20, evaluated=True)
    assert found.images == {split: len(names["v", split]) for split in ("train", "test")}
    assert remaining(whole, 20).images["test"] == len(names["plain", "test"])


def test_cifar20_has_validation_images_of_its_own():
    plain, checked = cifar20(), cifar20(test="validation")
    assert contents(checked, "train") == contents(plain, "train")
    counts = Counter(item.label for item in checked.items if item.split == "test")
    assert counts == dict.fromkeys(range(20), 20)
    assert not contents(checked, "test") & (contents(plain, "test") | contents(plain, "train"))
