"""The images that ship with the package, and the script that selects them from CIFAR-100."""

import os
from collections import Counter
from importlib.resources import files
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cdl.data.sources.cifar20 import CIFAR20
from cdl.data.sources.items import Item, Source
from cdl.data.sources.summary import summarise
from cdl.device.decoding import decode
from tools import make_cifar20

ROOT = Path(__file__).parents[2]
FILE = Path(str(files("cdl") / "assets" / "cifar20.parquet"))
WHOLE = Path(os.environ.get("CDL_CIFAR100", ROOT / "data" / "cifar100"))  # CIFAR-100 itself


def test_it_has_twenty_classes_with_a_hundred_images_of_each_split():
    source = CIFAR20.read()
    items = list(source.items)
    assert len(source.classes) == CIFAR20.n_classes == 20
    assert source.classes == tuple(sorted(source.classes))
    assert source.classes[:3] == ("apple", "bed", "bowl")
    counts = Counter((item.split, item.label) for item in items)
    assert counts == {(split, label): 100 for split in ("train", "test") for label in range(20)}
    assert summarise({"name": "cifar20"}, str).images == CIFAR20.n_images
    pixels = items[-1].read()
    assert pixels.shape == (32, 32, 3) and pixels.dtype == np.uint8


def test_no_image_is_in_two_splits_or_twice_in_one():
    table = pq.read_table(FILE)
    assert Counter(table["split"].to_pylist()) == {"train": 2000, "validation": 400, "test": 2000}
    images = {decode(raw, "x").tobytes() for raw in table["image"].to_pylist()}
    assert len(images) == len(table) == 4400


def test_it_is_small_enough_for_the_package():
    assert FILE.stat().st_size < 8e6


def made():
    """Ten classes with five images per split; the last image of each split is the same."""
    pixels = np.random.default_rng(0).integers(0, 256, (10, 10, 4, 4, 3), dtype=np.uint8)
    pixels[:, 9] = pixels[:, 4]
    names = [f"class{i}" for i in reversed(range(10))]
    items = [
        Item("train" if i < 5 else "test", c, f"{c}/{i}", pixels[c, i].copy)
        for c in range(10)
        for i in range(10)
    ]
    return Source(tuple(names), items), pixels


def test_the_selection_has_every_fifth_class_and_no_image_twice_in_any_order(monkeypatch):
    parts = {"train": {"train": 3, "validation": 2}, "test": {"test": 9}}
    monkeypatch.setattr(make_cifar20, "PARTS", parts)
    source, pixels = made()
    rows = make_cifar20.cut(source)
    counts = Counter((split, name) for split, name, _ in rows)
    for name in ("class0", "class5"):
        assert [counts[s, name] for s in ("train", "validation", "test")] == [3, 2, 4]
    assert len(rows) == 18
    own = {image.tobytes() for c in (9, 4) for image in pixels[c]}
    assert {image.tobytes() for _, _, image in rows} == own
    again = make_cifar20.cut(Source(source.classes, list(source.items)[::-1]))
    assert all(
        np.array_equal(a[2], b[2]) and a[:2] == b[:2] for a, b in zip(rows, again, strict=True)
    )


@pytest.mark.slow
def test_the_script_selects_the_same_pixels_from_cifar100():
    if not (list(WHOLE.glob("*.parquet")) or list(WHOLE.glob("*.tar.gz"))):
        pytest.skip(f"no CIFAR-100 in {WHOLE}; set CDL_CIFAR100 to its folder")
    rows = make_cifar20.cut(make_cifar20.read(WHOLE))
    table = pq.read_table(FILE).to_pylist()
    assert len(rows) == len(table)
    for (split, name, pixels), row in zip(rows, table, strict=True):
        assert (split, name) == (row["split"], row["class_name"])
        assert np.array_equal(pixels, decode(row["image"], name))
