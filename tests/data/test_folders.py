"""Listing of a folder, the draw of a split, and what is refused."""

import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest
from lab import make_grid
from PIL import Image

from cdl.data.packing import prepare
from cdl.data.sources.folder import drawn, images_of
from cdl.runtime.errors import CdlError

SPLIT = {"test": 0.25, "seed": 0, "stratified": True}
ALONE = SPLIT | {"stratified": False}


def write_image(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def make_classes(root, n=40, classes=("ant", "bee"), first=0):
    for c, name in enumerate(classes):
        for i in range(first, first + n):
            write_image(root / name / f"{i}.png", 1000 * c + i)
    return root


def make_splits(root, n=2):
    for s, split in enumerate(("train", "test")):
        for c, name in enumerate(("ant", "bee")):
            for i in range(n):
                write_image(root / split / name / f"{i}.png", 100 * s + 10 * c + i)
    return root


def sides(root, split=SPLIT):
    images = drawn(images_of(str(root), split=split), split).images
    return {str(image.path.relative_to(root)): image.split for image in images}


def refused(root, message, **options):
    with pytest.raises(CdlError, match=message):
        prepare(root.parent / "packed", {"name": "folder", "path": str(root), **options})
    assert not (root.parent / "packed" / "manifest.json").exists()


def test_a_drawn_split_is_packed_and_recorded(tmp_path):
    root = make_classes(tmp_path / "raw")
    (root / "README.txt").touch()
    source = {"name": "folder", "path": str(root), "split": SPLIT}
    prepare(tmp_path / "p", source)
    manifest = json.loads((tmp_path / "p" / "manifest.json").read_text())
    assert manifest["source"]["split"] == SPLIT
    assert manifest["skipped"] == {".txt": 1}
    assert sum(split["images"] for split in manifest["splits"].values()) == 80
    for split in ("train", "test"):
        names = pd.read_parquet(tmp_path / "p" / f"{split}.parquet")["name"]
        assert {sides(root)[name] for name in names} == {split}


@pytest.mark.parametrize(("n", "tested"), [(2, 1), (5, 2), (30, 8)])
def test_every_class_gives_its_share_of_test_images(tmp_path, n, tested):
    names = [name for name, split in sides(make_classes(tmp_path, n)).items() if split == "test"]
    assert sorted(name.split("/")[0] for name in names) == ["ant"] * tested + ["bee"] * tested


def test_the_rule_of_a_drawn_split_is_part_of_the_name_of_the_packed_data(tmp_path):
    path, name, block = str(tmp_path), "pets", {"tasks": 2, "view": {"size": 16}}
    whole, alone = (
        make_grid({"datasets": {name: block | {"source": {"folder": {"path": path, **split}}}}})
        for split in ({"split": {"test": 0.25}}, {"split": {"test": 0.25, "stratified": False}})
    )
    assert whole.source("pets")["source"]["split"] == SPLIT
    assert whole.packed_name("pets") != alone.packed_name("pets")


def test_images_drawn_by_themselves_move_no_other(tmp_path):
    root = make_classes(tmp_path)
    before = sides(root, ALONE)
    make_classes(root, 30, ("ant", "cow"), first=40)
    after = sides(root, ALONE)
    assert len(after) == 140
    assert {name: after[name] for name in before} == before
    for i in range(0, 40, 2):
        (root / "ant" / f"{i}.png").rename(root / "ant" / f"renamed{i}.png")
        (root / "bee" / f"{i}.png").unlink()
    later = sides(root, ALONE)
    for i in range(40):
        name = f"ant/renamed{i}.png" if i % 2 == 0 else f"bee/{i}.png"
        assert later[name] == before[name.replace("renamed", "")]


def test_equal_files_are_in_one_split_and_another_seed_draws_others(tmp_path):
    root = make_classes(tmp_path)
    shutil.copytree(root / "ant", root / "copy")
    found = sides(root)
    assert all(found[f"ant/{i}.png"] == found[f"copy/{i}.png"] for i in range(40))
    assert sides(root, SPLIT | {"seed": 1}) != found


def test_a_class_without_test_images_is_refused(tmp_path):
    root = make_classes(tmp_path / "raw", 40)
    make_classes(root, 1, ("cow",))
    refused(root, "the test split has no image of class 'cow'; use more images", split=SPLIT)


def test_the_error_for_a_folder_of_classes_suggests_a_split(tmp_path):
    refused(make_classes(tmp_path / "raw", 2), r"set split: \{test: 0.2, seed: 0\}")


def test_links_to_split_and_class_folders_are_followed(tmp_path):
    make_splits(tmp_path / "far")
    root = tmp_path / "raw"
    (root / "train").mkdir(parents=True)
    (root / "test").symlink_to(tmp_path / "far" / "test")
    for name in ("ant", "bee"):
        (root / "train" / name).symlink_to(tmp_path / "far" / "train" / name)
    assert len(images_of(str(root)).images) == 8


def test_images_that_would_be_lost_are_refused(tmp_path):
    root = make_splits(tmp_path / "raw")
    (root / "train" / "ant" / "more").mkdir()
    refused(root, "train/ant/more is a folder inside a class")
    (root / "train" / "ant" / "more").rename(root / "train" / "ant" / ".more")
    (root / "train" / "cow").mkdir()
    refused(root, "the class .*train/cow has no image")
    (root / "train" / "cow" / "notes.txt").touch()
    refused(root, "the class .*train/cow has no image")
    (root / "train" / "dog").mkdir()
    refused(root, "train/cow, .*train/dog have no image: remove the folder, add images, or begin")
    shutil.rmtree(root / "train" / "cow")
    shutil.rmtree(root / "train" / "dog")
    write_image(root / "train" / "lost.png", 9)
    refused(root, "train/lost.png is not in a class")


def test_pipes_devices_and_dead_links_among_images_are_refused_and_never_opened(tmp_path):
    root = make_splits(tmp_path / "raw")
    odd = root / "train" / "ant" / "odd.png"
    os.mkfifo(odd)
    refused(root, "odd.png is not a regular file")
    odd.unlink()
    odd.symlink_to("/dev/zero")
    refused(root, "odd.png is not a regular file")
    odd.unlink()
    odd.symlink_to(root / "nowhere")
    refused(root, "odd.png is not a regular file")
    odd.rename(root / "train" / "ant" / "odd.log")  # not the suffix of an image, so it is skipped
    prepare(tmp_path / "packed", {"name": "folder", "path": str(root)})


def test_names_that_are_not_utf8_are_one_error(tmp_path):
    root = make_splits(tmp_path / "raw")
    name = os.fsdecode(b"caf\xe9.png")
    write_image(root / "train" / "ant" / name, 9)
    refused(root, r"the name '.*caf\\udce9.png' is not UTF-8: rename it")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (b"ant/0.png\nbee/0.png\nant/./0.png\n", "'ant/./0.png' is repeated in lines 1 and 3"),
        (b"ant/0.png\nbee/caf\xe9.png\n", "cannot be read as text in UTF-8"),
        (b"ant/0.png\n//bee.png\n", "invalid line '//bee.png'; expected"),
        (b"ant/0.png\nodd/odd.png\n", "odd.png is not a regular file"),
        (b"ant/0.png\nbee/gone.png\nbee/lost.png\n", "2 images .*gone.png cannot .*lost.png cann"),
    ],
)
def test_an_invalid_split_file_is_one_error(tmp_path, lines, message):
    root = make_classes(tmp_path / "raw", 3)
    (root / "odd").mkdir()
    os.mkfifo(root / "odd" / "odd.png")
    (root / "train.txt").write_bytes(lines)
    (root / "test.txt").write_text("ant/2.png\nbee/2.png\n")
    refused(root, message, train="train.txt", test="test.txt")


def test_a_split_file_written_on_another_system_is_read(tmp_path):
    root = make_classes(tmp_path / "raw", 3)
    (root / "train.txt").write_bytes(b"\xef\xbb\xbfant/0.png\r\nbee/0.png\r\n\r\n")
    (root / "test.txt").write_text("ant/2.png\nbee/2.png\n")
    listing = images_of(str(root), "train.txt", "test.txt")
    assert listing.classes == ("ant", "bee")


def test_copies_are_counted_and_named_in_manifest_and_log(tmp_path, caplog):
    root = make_splits(tmp_path / "raw")
    for copy in ("train/bee/copy.png", "train/ant/copy.png"):
        shutil.copy(root / "train" / "ant" / "0.png", root / copy)
    prepare(tmp_path / "p", {"name": "folder", "path": str(root)})
    manifest = json.loads((tmp_path / "p" / "manifest.json").read_text())
    names = ["train/ant/0.png", "train/ant/copy.png", "train/bee/copy.png"]
    assert manifest["equal_pixels_under_two_labels"] == {"images": 3, "first": names}
    assert manifest["equal_pixels_in_one_split"] == 2
    assert manifest["equal_pixels_in_both_splits"] == 0
    assert "3 images have copies with another label: 'train/ant/0.png', " in caplog.text


def table(folder, names, files=None, labels=(0, 1)):
    raw = []
    for i in range(len(labels)):
        write_image(folder / "x.png", i)
        raw.append((folder / "x.png").read_bytes())
    frame = pd.DataFrame({"image": raw, "label": labels, "name": names})
    for split in ("train", "test"):
        own = [name and f"{split}/{name}" for name in files or map(str, labels)]
        frame.assign(file=own).to_parquet(folder / f"{split}.parquet")
    return {"name": "parquet", "path": str(folder), "class_name": "name", "file": "file"}


@pytest.mark.parametrize(
    ("names", "files", "message"),
    [
        (["cat", None], None, "the class with label 1 has no name"),
        (["cat", ""], None, "the class with label 1 has no name"),
        (["cat", "cat"], None, "the labels 0 and 1 are both named 'cat'"),
        (["cat", "dog"], ["a", None], "column 'file' contains None in row 1; expected a path"),
    ],
)
def test_null_and_doubled_names_in_parquet_are_refused(tmp_path, names, files, message):
    with pytest.raises(CdlError, match=message):
        prepare(tmp_path / "p", table(tmp_path, names, files))


def test_booleans_are_not_labels(tmp_path):
    with pytest.raises(CdlError, match="invalid label (True|False) in column 'label'"):
        prepare(tmp_path / "p", table(tmp_path, ["cat", "dog"], labels=(False, True)))
