"""Sources that keep some of their classes: which images are left, and what planning knows."""

from collections import Counter
from functools import reduce
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdl.data.sources import SOURCES, images_per_class, n_classes, n_images
from cdl.data.sources.items import Item, Source, only
from cdl.data.sources.summary import summarise
from cdl.runtime.errors import CdlError
from cdl.study.configuration import ConfigError, merge, read, resolve
from cdl.study.grid import Grid

ROOT = Path(__file__).parents[2]
NAMES = ("ant", "bee", "cow", "dog")


def whole():
    items = [Item("train", i % 4, f"{i}", lambda: None) for i in range(12)]
    return Source(NAMES, items)


@given(st.lists(st.sampled_from(range(4)), unique=True, min_size=1), st.data())
def test_the_images_of_the_chosen_classes_are_left_in_label_order(labels, data):
    chosen = [data.draw(st.sampled_from([label, NAMES[label]])) for label in labels]
    found = only(whole(), chosen)
    assert found.classes == tuple(NAMES[label] for label in sorted(labels))
    kept = [(item.name, found.classes[item.label]) for item in found.items]
    assert kept == [(str(i), NAMES[i % 4]) for i in range(12) if i % 4 in labels]


def test_without_a_choice_a_source_is_unchanged():
    source = whole()
    assert only(source, None) is source


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["ant", "bea"], "classes: 'bea' is not a class; expected each of the 4 classes at most"),
        ([4], "classes: 4 is not a class"),
        (["ant", 0], "classes: 0 is listed twice"),
    ],
)
def test_a_class_that_does_not_exist_is_reported_in_one_sentence(classes, message):
    with pytest.raises(CdlError, match=f"^{message}"):
        only(whole(), classes)


def test_the_embedded_images_of_three_classes():
    source = SOURCES["cifar20"].read(classes=["bowl", "apple", 1])
    assert source.classes == ("apple", "bed", "bowl")
    counts = Counter((item.split, item.label) for item in source.items)
    assert counts == {(split, label): 100 for split in ("train", "test") for label in range(3)}


@pytest.mark.parametrize("source", ["cifar10", "cifar20", "cifar100"])
def test_planning_knows_the_numbers_of_chosen_classes(source):
    options, chosen = ({"root": "data", "classes": c} for c in (None, [3, 1, "x"]))
    assert (n_classes(source, options), n_classes(source, chosen)) == (
        SOURCES[source].n_classes,
        3,
    )
    assert images_per_class(source, chosen) == images_per_class(source, options)
    images, all_images = n_images(source, chosen), n_images(source, options)
    for split in ("train", "test"):
        assert images[split] * SOURCES[source].n_classes == 3 * all_images[split]


def test_parquet_is_counted_as_it_is_read(tmp_path):
    for split, n in (("train", 3), ("test", 1)):
        frame = pd.DataFrame({"image": [b"none"] * 3 * n, "label": [0, 1, 2] * n})
        frame["title"] = ["cat", "dog", "emu"] * n
        frame.to_parquet(tmp_path / f"{split}.parquet")
    options = {"path": str(tmp_path), "class_name": "title", "classes": ["emu", 0]}
    defaults = {k: o["default"] for k, o in SOURCES["parquet"].options.items() if "default" in o}
    found = summarise({"name": "parquet", **defaults, **options}, str)
    assert (found.n_classes, found.classes) == (2, {"cat": (3, 1), "emu": (3, 1)})
    source = SOURCES["parquet"].read(**options)
    assert source.classes == ("cat", "emu")
    assert Counter(item.label for item in source.items) == {0: 4, 1: 4}
    assert n_classes("parquet", options) == 2


def grid(**dataset):
    given = {"source": {"cifar20": {"classes": dataset.pop("classes")}}, **dataset}
    changes = {"name": "some", "datasets": {"cifar20": given}}
    return Grid(resolve(reduce(merge, (read(ROOT / "config" / "default.yaml"), changes))))


def test_a_configuration_may_use_four_classes():
    made = grid(classes=["apple", "bed", 5, 7], tasks=2)
    whole = Grid(resolve(read(ROOT / "config" / "default.yaml")))
    assert made.source("cifar20")["source"]["classes"] == ["apple", "bed", 5, 7]
    assert made.packed_name("cifar20") != whole.packed_name("cifar20")
    assert whole.source("cifar20")["source"]["classes"] is None


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ({"classes": [0, 20]}, r"source\.cifar20\.classes: invalid value \[0, 20\]; .* 0 to 19"),
        ({"classes": [0, 1, 2], "tasks": 2}, "tasks: invalid value 2; .* divisor of its 3 classes"),
        ({"classes": []}, r"source\.cifar20\.classes: \[\]"),
        ({"classes": [1, 1]}, r"source\.cifar20\.classes: .*non-unique"),
    ],
)
def test_classes_that_do_not_fit_are_refused_before_any_job(dataset, message):
    with pytest.raises(ConfigError, match=message):
        grid(**dataset)
