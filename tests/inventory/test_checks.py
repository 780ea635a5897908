"""What cannot be trained on is one sentence before any job."""

import pytest
from lab import make_grid
from test_suggesting import write_photos

from cdl.inventory.datasets import describe, remarks
from cdl.study.configuration import ConfigError

COUNTS = {"ant": 4, "bee": 5, "cow": 6, "dog": 7}


def grid_of(folder, more=None, **dataset):
    """Return a grid on the photos of a folder, by default four classes in two tasks."""
    source = {"folder": {"path": str(folder), "split": {"test": 0.5}}}
    mine = {"source": source, "tasks": 2, "view": {"size": 32}} | dataset
    grid = {"datasets": ["m"], "methods": ["l2p"]}
    return make_grid({"datasets": {"m": mine}, "grid": grid} | (more or {}))


@pytest.mark.parametrize(
    ("dataset", "more", "sentence"),
    [
        (
            {},
            {"training": {"batch_size": 9}},
            "training.batch_size: invalid value 9; expected at most ",
        ),
        (
            {"labels": {"per_class": 1, "others": "unused"}},
            {"training": {"batch_size": 3}},
            "training.batch_size: invalid value 3; expected at most 2, the labelled training ",
        ),
        (
            {"tasks": 4},
            {"training": {"batch_size": 1}},
            "datasets.m.tasks: invalid value 4; expected two classes or more in every task: ",
        ),
        (
            {"images_per_class": 40},
            {"training": {"batch_size": 1}},
            "datasets.m.images_per_class: invalid value 40; expected at most ",
        ),
    ],
)
def test_impossible_training_is_refused(dataset, more, sentence, tmp_path):
    write_photos(tmp_path / "raw", COUNTS)
    (problem,) = describe(grid_of(tmp_path / "raw", more, **dataset))[1]
    assert problem.startswith(sentence)
    if "images_per_class" in dataset:
        assert "; lower images_per_class, add images, or" in problem


@pytest.mark.parametrize(
    ("images", "order", "number", "few"),
    [
        ([None, 9], "natural", 9, ("cow", "dog")),
        ([9, None], ["dog", "ant", "cow", "bee"], 9, ("ant", "dog")),
        ([9, 8], "seeded", 8, ("ant", "bee", "cow", "dog")),
        ([9, None], "seeded", 0, ()),  # the order decides which classes have too few images
    ],
)
def test_classes_without_the_images_of_their_task_are_listed(images, order, number, few, tmp_path):
    write_photos(tmp_path / "raw", COUNTS)
    made = grid_of(tmp_path / "raw", images_per_class=images, class_order=order)
    found = [text for text in describe(made)[1] if "images_per_class" in text]
    assert [text.split(";")[0] for text in found] == [
        f"datasets.m.images_per_class: invalid value {number}"
    ] * bool(few)
    for text in found:
        assert [name for name in COUNTS if f"'{name}' (" in text] == [*few]


@pytest.mark.parametrize(
    ("dataset", "sentence"),
    [
        ({"tasks": [9, 1]}, "datasets.m.tasks: invalid value .9, 1.; expected two classes or more"),
        ({"images_per_class": 3}, "training.batch_size: invalid value 16; expected at most 15, "),
    ],
)
def test_it_is_refused_at_planning_where_the_classes_are_known(dataset, sentence):
    mine = {"source": {"digits": {}}, "tasks": 2, "view": {"size": 32}} | dataset
    more = {"training": {"batch_size": 16}, "grid": {"datasets": ["m"], "methods": ["l2p"]}}
    with pytest.raises(ConfigError, match=sentence):
        make_grid({"datasets": {"m": mine}} | more)


def test_all_problems_of_a_folder_are_listed_at_once(tmp_path):
    write_photos(tmp_path / "raw", COUNTS)
    (tmp_path / "raw" / "elk").mkdir()
    (tmp_path / "raw" / "ant" / "more").mkdir()
    (tmp_path / "raw" / "loose.png").touch()
    (tmp_path / "raw" / "bee" / "broken.png").write_bytes(b"no image")
    for name in ("a.HEIC", "b.heic"):
        (tmp_path / "raw" / "cow" / name).touch()
    problems = describe(grid_of(tmp_path / "raw", {"training": {"batch_size": 1}}))[1]
    for part in (
        "more is a folder inside a class",
        "loose.png is not in a class",
        "elk has no image",
        "a.HEIC and 1 more: invalid format .heic; convert or remove",
        "1 image cannot be used: ",
    ):
        assert [part in problem for problem in problems].count(True) == 1, part
    assert len(problems) == 5


def test_the_originals_of_converted_photos_are_skipped(tmp_path):
    write_photos(tmp_path / "raw", COUNTS)
    (tmp_path / "raw" / "cow" / "0.heic").touch()  # beside 0.png
    found, problems = describe(grid_of(tmp_path / "raw", {"training": {"batch_size": 1}}))
    assert not problems and found["m"].skipped == {".heic": 1}


def test_a_small_view_and_weights_for_research_are_remarked(tmp_path):
    write_photos(tmp_path / "raw", COUNTS)
    notes = [*remarks(grid_of(tmp_path / "raw", view={"size": 16}))]
    assert any("view.size: 16 is below 32, the size that vit_nano was pretr" in n for n in notes)
    assert notes[-1].startswith("backbones: the licence of ")
