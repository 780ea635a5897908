"""Changes of a user's files are detected by content, also behind links, not by time."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from cdl.spec import OrderSeed, Stream
from cdl.study.configuration import ConfigError
from cdl.study.contents import contents, files_of, hashes, images_contents, reread

FOLDER = {"name": "folder", "train": "train", "test": "test", "split": None}
PARQUET = {"name": "parquet", "train": "train*.parquet", "test": "test*.parquet"}


def write_image(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "BMP")  # all files have the same size


def make(root):
    for split in ("train", "test"):
        for name in ("ant", "bee"):
            write_image(root / split / name / "0.bmp")
    return root


@pytest.fixture
def ask(tmp_path):
    """Return a function that computes the digest of the folder `raw`, as in planning."""
    source = FOLDER | {"path": str(tmp_path / "raw")}
    return lambda: contents(files_of(source), tmp_path / "memory.json")


def test_changed_images_behind_linked_folders_are_noticed(tmp_path, ask):
    far, raw = make(tmp_path / "far"), tmp_path / "raw"
    (raw / "train").mkdir(parents=True)
    (raw / "test").symlink_to(far / "test")
    for name in ("ant", "bee"):
        (raw / "train" / name).symlink_to(far / "train" / name)
    before = ask()
    write_image(far / "train" / "ant" / "0.bmp", 1)
    changed = ask()
    write_image(far / "test" / "bee" / "1.bmp", 2)
    assert len({before, changed, ask()}) == 3


def test_files_that_no_class_reads_are_no_reason_to_plan_jobs(tmp_path, ask):
    raw = make(tmp_path / "raw")
    before = ask()
    for name in ("README.txt", "train/notes.csv", "train/ant/.DS_Store", "val/ant/0.bmp"):
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        (raw / name).write_text("x")
    write_image(raw / "train" / "ant" / ".ipynb_checkpoints" / "0-checkpoint.bmp")
    assert ask() == before
    write_image(raw / "train" / "ant" / "1.bmp")
    assert ask() != before


def test_all_images_count_for_a_drawn_class_order_whichever_seed_it_has(tmp_path):
    raw = make(tmp_path / "raw")
    source = FOLDER | {"path": str(raw), "domains": False}
    known = hashes(files_of(source), tmp_path / "memory.json")
    orders = ("seeded", "seeded_tasks", OrderSeed(1), ("bee", "ant"))
    *drawn, listed = (images_contents(source, Stream(2, o), 0, known) for o in orders)
    assert len(set(drawn)) == 1 and listed not in drawn


def test_a_changed_split_file_is_noticed(tmp_path):
    raw = make(tmp_path / "raw") / "train"
    for split in ("train", "test"):
        (raw / f"{split}.txt").write_text("ant/0.bmp\nbee/0.bmp\n")
    source = FOLDER | {"path": str(raw), "train": "train.txt", "test": "test.txt"}
    before = contents(files_of(source), tmp_path / "m.json")
    (raw / "test.txt").write_text("bee/0.bmp\nant/0.bmp\n")
    assert contents(files_of(source), tmp_path / "m.json") != before


@pytest.mark.parametrize(
    "memory",
    ["[]", "{}", "3", "null", '"x"', "[[]]", '{"files": []}', "[" * 9000, "", '{"files": {"a": 1}}']
    + ['{"files": NaN, "sha256": 1}', "\0"],
)
def test_a_memory_that_holds_something_else_is_made_again(tmp_path, ask, memory):
    make(tmp_path / "raw")
    before = ask()
    whole = (tmp_path / "memory.json").read_text()
    (tmp_path / "memory.json").write_text(memory)
    assert ask() == before
    assert (tmp_path / "memory.json").read_text() == whole


def test_a_memory_with_one_changed_hash_is_not_believed(tmp_path, ask):
    make(tmp_path / "raw")
    before = ask()
    found = json.loads((tmp_path / "memory.json").read_text())
    next(iter(found["files"].values()))[2] = "0" * 64
    (tmp_path / "memory.json").write_text(json.dumps(found))
    assert ask() == before


def test_files_are_read_again_only_if_size_or_time_changed(tmp_path, ask, monkeypatch):
    make(tmp_path / "raw")
    before = ask()
    read = []
    from cdl.study import contents as module

    real = module.fingerprint_file
    monkeypatch.setattr(module, "fingerprint_file", lambda file: read.append(file) or real(file))
    assert ask() == before and read == []
    os.utime(tmp_path / "raw" / "train" / "ant" / "0.bmp")
    assert ask() == before and len(read) == 1


def test_other_pixels_of_equal_size_and_time_are_found_by_reading_everything(tmp_path, ask):
    raw = make(tmp_path / "raw")
    source = FOLDER | {"path": str(raw)}
    before, file = ask(), raw / "train" / "ant" / "0.bmp"
    assert reread(files_of(source)) == before
    status = file.stat()
    write_image(file, 1)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert ask() == before, "planning believes size and time"
    assert reread(files_of(source)) != before


def test_a_pipe_among_images_is_refused_before_it_is_opened(tmp_path, ask):
    os.mkfifo(make(tmp_path / "raw") / "train" / "ant" / "1.png")
    with pytest.raises(ConfigError, match="1.png is not a regular file"):
        ask()


def test_a_source_that_is_not_there_is_one_sentence(tmp_path, ask):
    with pytest.raises(ConfigError, match=f"raw: no such folder .tried {tmp_path}/raw.; a path in"):
        ask()
    (tmp_path / "raw").mkdir()
    with pytest.raises(ConfigError, match="raw/train is neither a folder of classes nor"):
        ask()
    with pytest.raises(ConfigError, match="no train file matches 'train.*.parquet' in the folder"):
        files_of(PARQUET | {"path": str(tmp_path)})


def test_linked_parquet_files_are_watched(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "raw").mkdir()
    for split in ("train", "test"):
        (tmp_path / "far" / split).write_bytes(b"x")
        (tmp_path / "raw" / f"{split}.parquet").symlink_to(tmp_path / "far" / split)
    source = PARQUET | {"path": str(tmp_path / "raw")}
    before = hashes(files_of(source), tmp_path / "m.json")
    shutil.copy(__file__, tmp_path / "far" / "train")
    assert hashes(files_of(source), tmp_path / "m.json") != before
