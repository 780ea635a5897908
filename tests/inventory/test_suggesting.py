"""`cdl init --images` and `--texts`: the configuration fits the files and passes all checks."""

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from cdl.cli import app
from cdl.inventory.datasets import check, remarks
from cdl.inventory.suggesting import PUBLIC, suggest
from cdl.study.configuration import ConfigError


def write_photos(folder, counts, size=(8, 8)):
    """Write `counts[name]` different photos of each class."""
    rng = np.random.default_rng(0)
    for name, n in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(n):
            pixels = rng.integers(0, 256, (*size, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


@pytest.mark.parametrize(
    ("counts", "tasks"),
    [
        ([2, 2], 1),
        ([4, 9, 30], 1),
        ([3, 3, 3, 40, 5], [3, 2]),
        ([20] * 6, 2),
        ([8] * 11, [3, 2, 2, 2, 2]),
    ],
)
def test_the_suggestion_fits_the_classes_and_passes_all_checks(
    counts, tasks, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / "My photos", {f"class {i}": n for i, n in enumerate(counts)})
    grid = suggest(tmp_path / "My photos").grid
    assert grid.config["name"] == "My_photos" and [*grid.datasets] == ["My_photos"]
    assert grid.datasets["My_photos"].options["tasks"] == tasks
    assert grid.datasets["My_photos"].options["view"]["size"] == 32
    assert grid.datasets["My_photos"].options["view"]["flip"] == 0.5
    (found,) = check(grid).values()
    assert all(min(pair) > 0 for pair in found.classes.values())
    assert not any("size" in note for note in remarks(grid))


def test_a_class_of_one_photo_is_refused_and_a_small_class_explains_the_test_share(tmp_path):
    write_photos(tmp_path, {"ant": 20, "bee": 1})
    with pytest.raises(ConfigError, match=f"^{tmp_path}/bee: has 1 photo; a class needs two"):
        suggest(tmp_path)
    write_photos(tmp_path, {f"cat{n}": 1 for n in range(6)})
    with pytest.raises(ConfigError, match="/cat3 and 2 more: have 1 photo each; a class needs two"):
        suggest(tmp_path)
    for cat in tmp_path.glob("cat*"):
        cat.rename(tmp_path / f".{cat.name}")
    write_photos(tmp_path, {"cow": 4})
    (tmp_path / "bee").rename(tmp_path / ".bee")
    why = suggest(tmp_path).reasons["split"]
    assert why.endswith("3 of 10 of each class, since 'cow' has 4 photos, fewer than 15")


@pytest.mark.parametrize("name", ["test", "val"])
def test_folders_of_a_split_are_used(name, tmp_path):
    for split in ("train", name):
        write_photos(tmp_path / "birds" / split, {"wren": 4, "tit": 4})
    dataset = suggest(tmp_path / "birds").grid.datasets["birds"].options
    assert dataset["source"]["folder"]["test"] == name
    assert dataset["source"]["folder"]["split"] is None


def test_the_view_is_that_of_the_backbone_and_large_photos_are_stored_smaller(tmp_path):
    write_photos(tmp_path / "birds", {"wren": 3, "tit": 3}, size=(300, 500))
    small, large = (suggest(tmp_path / "birds", name).grid for name in (None, PUBLIC))
    small, large = (grid.datasets["birds"].options for grid in (small, large))
    assert (small["view"]["size"], small["short_side"]) == (32, 64)
    assert (large["view"]["size"], large["view"]["test_resize"]) == (224, 256)
    assert large["short_side"] is None


@pytest.mark.parametrize(
    ("header", "row", "source"),
    [
        ("text,label", "{text},{label}", {"delimiter": ","}),
        ("id;request;topic", "{i};{text};{label}", {"text": "request", "label": "topic"}),
    ],
)
def test_columns_and_delimiter_of_texts_are_found(header, row, source, tmp_path):
    rows = [row.format(i=i, text=f"where is card {i}", label=f"topic{i % 4}") for i in range(40)]
    (tmp_path / "tickets.csv").write_text("\n".join([header, *rows]))
    grid = suggest(tmp_path / "tickets.csv").grid
    assert source.items() <= grid.datasets["tickets"].options["source"]["csv"].items()
    (found,) = check(grid).values()
    assert found.images == {"train": 32, "test": 8} and found.n_classes == 4


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--images", "none"], "none: does not exist; expected a folder with none/CLASS/*.jpg"),
        (["--images", "one"], "one: has 1 class; expected two or more, in one/CLASS/*.jpg"),
        (["--texts", "one"], "one: is not a CSV file with a header"),
    ],
)
def test_files_without_classes_are_refused(arguments, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / "one", {"wren": 3})
    with pytest.raises(ConfigError) as error:
        CliRunner().invoke(app, ["init", "study", *arguments], catch_exceptions=False)
    assert str(error.value) == sentence
    assert not (tmp_path / "study").exists()


def test_init_prints_what_it_chose_and_data_reads_the_folder_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / "birds", {"wren": 20, "tit": 20})
    made = CliRunner().invoke(app, ["init", "study", "--images", "birds"], catch_exceptions=False)
    for topic in ("split", "view", "tasks", "training", "backbones"):
        assert f"\n  {topic}: " in made.output
    assert "allows research only" in made.output
    assert made.output.splitlines()[-1].startswith("wrote study/config.yaml; run: ")
    by_folder = CliRunner().invoke(app, ["data", "birds"], catch_exceptions=False)
    by_file = CliRunner().invoke(app, ["data", "study/config.yaml"], catch_exceptions=False)
    assert by_folder.output == by_file.output and by_file.output.startswith("birds: 2 classes, ")
