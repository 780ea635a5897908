"""The examples that people start from run on images, without torch and cdl."""

import subprocess
import sys
from pathlib import Path

import numpy as np
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
