"""Results of images that have changed since are not certified, also after a dry run."""

import os
from pathlib import Path

import numpy as np
import pytest
from lab import make_grid
from PIL import Image

from cdl.data.packing import prepare
from cdl.inventory.images import affected, changes, outdated_data
from cdl.inventory.status import report
from cdl.inventory.verify import sources_of, verify
from cdl.runtime.artifacts import read_json, write_json
from cdl.study.jobs import Jobs, flat
from cdl.study.learning_jobs import LearningJobs


def write(path, shade):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), shade, np.uint8)).save(path, "BMP")


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Return a function that plans a study of `images`, whose data are packed."""
    for n, (split, name) in enumerate((s, c) for s in ("train", "test") for c in ("bear", "cat")):
        for i in range(3):
            write(tmp_path / "images" / split / name / f"{i}.bmp", 10 * n + i)
    monkeypatch.chdir(tmp_path)
    source = {"folder": {"path": "images"}}
    mine = {"source": source, "tasks": 2, "view": {"size": 8}, "images_per_class": None}
    mine |= {"test_images_per_class": None}
    changed = {"datasets": {"mine": mine}, "grid": {"datasets": ["mine"]}}
    changed["protocol"] = {"class_order": "natural"}

    def plan():
        return LearningJobs(make_grid(changed))

    jobs = plan()
    (job,) = Jobs(jobs).of("prepare_dataset")
    folder = Path(job.records[0].path).parent
    prepare(folder, **job.params["source"], contents=job.params["contents"])
    return plan


def faults(jobs):
    sources = {n: read for n, read in sources_of(jobs.user).items() if "mine" in n}
    assert len(sources) == 1
    return verify([], sources).faults


def test_changed_images_are_found_after_any_planning(plan):
    assert faults(plan()) == () and outdated_data(plan().user) == []
    Path("images/train/bear/0.bmp").unlink()
    write(Path("images/test/cat/9.bmp"), 99)
    Path("images/test/cat/9.bmp").rename("images/test/cat/2.bmp")
    jobs = plan()
    (prepared,) = jobs.user.data
    for job in Jobs(jobs):  # as a dry run does
        job.params, job.inputs  # noqa: B018
    (fault,) = faults(plan())
    text = "1 image of 'bear' was removed, 1 image of 'cat' was changed"
    assert fault.state == "damaged" and f"{text} since results/data/" in fault.text
    assert outdated_data(plan().user) == [prepared]
    assert changes(plan().user, prepared) == text


def test_status_says_that_images_have_changed_and_what_runs_again(plan):
    jobs = Jobs(plan())
    for job in jobs:
        for path in flat(job.outputs) if job.rule != "prepare_dataset" else ():
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            record = path.endswith(".json")
            images = {"inputs": {"images": job.params.get("images")}}
            write_json(path, images) if record else Path(path).touch()
    assert report(plan().grid, 1).notes[0].startswith("  ")
    write(Path("images/train/cat/3.bmp"), 77)
    planned = plan()
    jobs = Jobs(planned)
    again = affected(jobs, outdated_data(planned.user))
    assert {job.key["task"] for job in again if job.rule in ("train", "distil")} == {"1"}
    assert set(jobs.of("evaluate")) <= again
    found = report(planned.grid, 1)
    line = f"examples of images have changed since (1 image of 'cat' was added): {len(again)} jobs"
    assert found.notes[0] == f"{line} would run again"
    assert found.notes.count(found.notes[0]) == 1
    assert found.cells["done"] == 0


def test_a_file_changed_behind_its_size_and_time_is_found_and_old_manifests_are_refused(plan):
    image = Path("images/train/bear/1.bmp")
    before = image.stat()
    write(image, 200)
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert outdated_data(plan().user) == [], "planning believes size and time"
    assert "1 image of 'bear' was changed" in faults(plan())[0].text
    (manifest,) = Path("results/data").glob("*/manifest.json")
    content = read_json(manifest)
    del content["contents"]
    write_json(manifest, content)
    assert "has no digest of its source files" in faults(plan())[0].text
    assert outdated_data(plan().user) == []
    manifest.unlink()
    assert "is missing" in faults(plan())[0].text


def test_a_changed_file_of_weights_is_found(plan, monkeypatch):
    jobs = plan()
    (name, *_) = jobs.user.backbones
    Path("w.safetensors").write_bytes(b"one")
    jobs.user.backbones = {name: {"source": "file", "model": "w.safetensors"}}
    read = sources_of(jobs.user)[f"source of {name}"]
    record = Path(f"results/backbones/{name}.json")
    hashed = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
    write_json(record, {"file_sha256": hashed})
    assert verify([], {"x": read}).faults == ()
    Path("w.safetensors").write_bytes(b"two")
    assert "w.safetensors was changed since" in verify([], {"x": read}).faults[0].text
