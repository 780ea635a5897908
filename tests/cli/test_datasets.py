"""`cdl data` describes datasets before a run and rejects impossible tasks."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from forked import run_module
from PIL import Image

ROOT = Path(__file__).parents[2]
BASE = """
name: mine
datasets:
  pets: {source: {SOURCE}, tasks: TASKS, view: {size: 8}}
training: {batch_size: 4}
backbones:
  vit_micro: {embedded: vit_micro_patch4_32}
  vit_nano: {embedded: vit_nano_patch4_32}
grid: {methods: [l2p], pairs: [{teacher: vit_micro, student: vit_nano}], distillers: [none, kd]}
"""
BLOCKER = "import sys\nsys.modules['torch'] = None  # importing it is an ImportError\n"


@pytest.fixture
def cdl_data(tmp_path):
    """Run `cdl data` on a source in an empty folder where torch cannot be imported."""

    def run(source, *arguments, tasks="2", more=""):
        config = BASE.replace("SOURCE", source).replace("TASKS", tasks) + more
        (tmp_path / "config.yaml").write_text(config)
        command = ["cdl", "data", "config.yaml", *arguments]
        return run_module(*command, before=BLOCKER, cwd=tmp_path)

    return run


def write(folder, classes=("ant", "bee", "cow", "dog"), n=30):
    for c, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            pixels = np.full((4, 4, 3), (c, i, 0), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


def test_a_folder_of_classes_with_a_drawn_split(cdl_data, tmp_path):
    write(tmp_path / "raw")
    (tmp_path / "raw" / "README.txt").touch()
    source = "folder: {path: raw, split: {test: 0.3}}"
    answer = cdl_data(source)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith("pets: 4 classes, ")
    assert "skipped, not images: 1 .txt" in answer.stdout
    found = json.loads(cdl_data(source, "--json").stdout)["pets"]
    assert found["n_classes"] == 4
    assert sum(found["images"].values()) == 120
    assert found["classes"].keys() == {"ant", "bee", "cow", "dog"}
    assert all(sum(counts) == 30 for counts in found["classes"].values())
    assert found["nbytes"] == sum(f.stat().st_size for f in tmp_path.glob("raw/*/*.png"))
    assert found["skipped"] == {".txt": 1}


def test_the_printed_counts_are_those_of_the_packed_data(cdl_data, tmp_path):
    from cdl.data.packing import prepare

    write(tmp_path / "raw")
    found = json.loads(cdl_data("folder: {path: raw, split: {test: 0.3}}", "--json").stdout)["pets"]
    split = {"test": 0.3, "seed": 0, "stratified": True}
    prepare(tmp_path / "p", {"name": "folder", "path": str(tmp_path / "raw"), "split": split})
    for i, name in enumerate(("train", "test")):
        labels = pd.read_parquet(tmp_path / "p" / f"{name}.parquet")["label"]
        counts = labels.value_counts().sort_index().tolist()
        assert counts == [pair[i] for pair in found["classes"].values()]


def test_parquet_is_counted_without_reading_images(cdl_data, tmp_path):
    for split, n in (("train", 3), ("test", 1)):
        frame = pd.DataFrame({"image": [b"none"] * 2 * n, "label": [0, 1] * n})
        frame.assign(title=["cat", "dog"] * n).to_parquet(tmp_path / f"{split}-0.parquet")
    (tmp_path / "raw").mkdir()
    for file in tmp_path.glob("*.parquet"):
        file.rename(tmp_path / "raw" / file.name)
    answer = cdl_data("parquet: {path: raw, class_name: title}", "--json", "--no-open", tasks="1")
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["pets"]["classes"] == {"cat": [3, 1], "dog": [3, 1]}


def test_downloads_of_a_published_source_are_printed(cdl_data):
    answer = cdl_data("cifar100: {}", tasks="10")
    assert "pets: 100 classes, 50,000 training and 10,000 test images\n" in answer.stdout
    assert "not fetched yet: data/cifar100/cifar-100-binary.tar.gz" in answer.stdout


@pytest.mark.parametrize(
    ("tasks", "more", "message"),
    [
        ("3", "", "datasets.pets.tasks: invalid value 3; expected a divisor of its 4 classes"),
        ("[3, 2]", "", "datasets.pets.tasks: invalid value [3, 2]; expected a divisor"),
        (
            "2",
            "protocol: {class_order: [0, 1, 4]}\n",
            "protocol.class_order: invalid value [0, 1, 4]; expected labels from 0 to 3",
        ),
    ],
)
def test_impossible_tasks_are_rejected(cdl_data, tmp_path, tasks, more, message):
    write(tmp_path / "raw")
    answer = cdl_data("folder: {path: raw, split: {test: 0.3}}", tasks=tasks, more=more)
    assert answer.returncode == 2
    assert message in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_more_images_than_a_class_has_are_rejected(cdl_data, tmp_path):
    write(tmp_path / "raw" / "train", n=5)
    write(tmp_path / "raw" / "test", n=3)
    answer = cdl_data("folder: {path: raw}", tasks="2, test_images_per_class: 4")
    assert answer.returncode == 2
    problem = "pets.test_images_per_class: invalid value 4; expected at most 3, the number of test"
    assert f"{problem} images of class 'ant'" in answer.stderr


def test_a_missing_source_and_a_split_given_twice_are_rejected(cdl_data, tmp_path):
    answer = cdl_data("folder: {path: raw}")
    assert answer.returncode == 2
    assert answer.stderr.startswith(
        f"cdl: datasets.pets: raw: no such folder (tried {tmp_path}/raw)"
    )
    (tmp_path / "raw").mkdir()
    answer = cdl_data("folder: {path: raw}")
    assert "cdl: datasets.pets: raw/train is neither a folder of classes nor a split file" in (
        answer.stderr
    )
    answer = cdl_data("folder: {path: raw, train: training, split: {test: 0.3}}")
    assert "folder.split: invalid value ['training', 'test']" in answer.stderr
    answer = cdl_data("folder: {path: raw, split: {test: 1.0}}")
    assert "datasets.pets.source.folder.split" in answer.stderr


def test_all_problems_are_named_at_once_with_what_is_needed(cdl_data, tmp_path):
    write(tmp_path / "raw" / "train", n=5)
    write(tmp_path / "raw" / "test", n=3)
    for name in ("ant/0.png", "dog/1.png"):
        (tmp_path / "raw" / "train" / name).write_bytes(b"no image")
    (tmp_path / "raw" / "train" / "bee" / "0.png").unlink()
    source = "folder: {path: raw}"
    answer = cdl_data(source, tasks="3, images_per_class: 5, test_images_per_class: 4")
    assert answer.returncode == 2
    first, small, few, tasks, broken = answer.stderr.splitlines()
    assert first == "cdl: 4 problems:"
    assert "images_per_class: invalid value 5; expected at most 4" in small
    assert "classes with fewer than 5: 'bee' (4); lower images_per_class, add" in small
    assert "classes with fewer than 4: 'ant' (3), 'bee' (3), 'cow' (3), 'dog' (3); lower" in few
    assert (
        "tasks: invalid value 3; expected a divisor" in tasks and "(equal tasks: 1, 2, 4)" in tasks
    )
    assert "2 images cannot be used: raw/train/ant/0.png" in broken
    assert "raw/train/dog/1.png" in broken and "names that begin with a dot are ignored" in broken
    assert cdl_data(source, "--no-open").returncode == 0
    for name in ("ant/0.png", "dog/1.png"):
        (tmp_path / "raw" / "train" / name).rename(tmp_path / "raw/train" / name.replace("/", "/."))
    assert cdl_data(source).returncode == 0, "left out as it says"


def test_every_class_that_a_draw_leaves_empty_is_named(cdl_data, tmp_path):
    write(tmp_path / "raw", n=1)
    answer = cdl_data("folder: {path: raw, split: {test: 0.5}}")
    empty = answer.stderr.split("no image of class ")[1].split(";")[0].split(", ")
    assert answer.returncode == 2 and len(empty) > 1


def test_copies_in_another_class_are_counted_if_the_items_are_opened(cdl_data, tmp_path):
    write(tmp_path / "raw")
    shutil.copy(tmp_path / "raw/ant/0.png", tmp_path / "raw/bee/again.png")
    source = "folder: {path: raw, split: {test: 0.3}}"
    assert "\n  2 images have copies in another class: " in cdl_data(source).stdout
    found = json.loads(cdl_data(source, "--json").stdout)["pets"]["disputed"]
    assert sorted(found) == ["ant/0.png", "bee/again.png"]
    unopened = json.loads(cdl_data(source, "--json", "--no-open").stdout)["pets"]
    assert unopened["disputed"] is None
    assert "copies" not in cdl_data(source, "--no-open").stdout
