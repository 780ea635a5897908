"""The examples that people start from; those for devices run without torch and cdl."""

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from learners import draw_images, write_learner
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"
# the examples, where torch and cdl are refused
RUN = """
import runpy, sys
for name in ("torch", "cdl"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def folder(tmp_path):
    return write_learner(tmp_path / "student")


def frames(folder, names, n=10):
    """Write images of classes one after another, as frames."""
    folder.mkdir()
    for i, pixels in enumerate(np.concatenate([draw_images(name, n, 3) for name in names])):
        Image.fromarray(pixels).save(folder / f"{i:03}.png")
    return folder


def run(name, *arguments):
    command = [sys.executable, "-c", RUN, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_raspberry_pi_predicts_and_learns(folder, tmp_path):
    images = frames(tmp_path / "images", ["white"])
    run("raspberry_pi.py", folder, "--images", images)
    lines = run("raspberry_pi.py", folder, "--images", images, "--teach", "white")
    assert lines[0] == "version 1, 4 classes; learnt white"
    lines = run("raspberry_pi.py", folder, "--images", images)
    assert len(lines) == 10 and sum("white" in line for line in lines) >= 8
    assert len((EXAMPLES / "raspberry_pi.py").read_text().splitlines()) <= 60


def test_a_robot_learns_on_request_and_reports_drift(folder, tmp_path):
    images = frames(tmp_path / "frames", ["red", "blue", "yellow", "yellow"])
    before = run("robot_loop.py", folder, images)
    assert before[-1].startswith("mean confidence ")
    lines = run("robot_loop.py", folder, images, "--teach", "yellow=20:29")
    assert "version 1, 4 classes; learnt yellow" in lines
    last = [line for line in lines if line.startswith("frame ")][-10:]
    assert sum("yellow" in line for line in last) >= 8


def test_the_teachers_images_are_not_the_students(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example = runpy.run_path(str(EXAMPLES / "own_teacher.py"))
    names = [f"{label}{i}" for label in "ab" for i in range(500)]
    images = pd.DataFrame({"image": names, "fine_label": [name[0] for name in names]})
    Path("data/cifar100").mkdir(parents=True)
    images.to_parquet("data/cifar100/train.parquet")
    images[:2].to_parquet("data/cifar100/test.parquet")
    example["split"](Path("data/cifar100"))
    parts = [pd.read_parquet(f"data/{k}.parquet") for k in ("teacher", "calibration", "student")]
    for part, n in zip(parts, (250, 25, 100), strict=True):
        assert part.fine_label.value_counts().tolist() == [n, n]
    every = pd.concat(parts).image
    assert every.is_unique
    outputs = np.log([[0.75, 0.25], [0.5, 0.5]])
    assert example["loss"](outputs, np.array([0, 1])) == pytest.approx(-np.log([0.75, 0.5]).mean())
