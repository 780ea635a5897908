"""The commands of `docs/start.md` lead from a folder of photos to a student that learns on."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from forked import run_module
from typer.testing import CliRunner

import cdl
from cdl.cli import app

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_commands_lead_from_photos_to_a_student_that_learns(tmp_path, monkeypatch):
    monkeypatch.setattr("cdl.deployment.demo.runtime_files", lambda source: [])  # from the network
    monkeypatch.chdir(tmp_path)
    images = pd.read_parquet(ROOT / "cdl/assets/cifar20.parquet")
    for folder, count, *names in (
        ("photos", 30, "apple", "bed", "rose", "whale"),
        ("new", 10, "tank"),
    ):
        for name in names:
            (tmp_path / folder / name).mkdir(parents=True)
            for i, content in enumerate(images.image[images.class_name == name][:count]):
                (tmp_path / folder / name / f"{i}.png").write_bytes(content)
    page = (ROOT / "docs/start.md").read_text()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    for block in re.findall(r"^```sh\n(.*?)^```$", page, re.M | re.S):
        for command in block.splitlines():
            if command.startswith("cdl demo"):
                CliRunner().invoke(app, command.split()[1:], catch_exceptions=False)
                continue
            if command.startswith("cdl run"):  # fewer epochs than the page's, to be quick
                config = tmp_path / "study/config.yaml"
                text, n = re.subn(r"^  epochs: \d+", "  epochs: 2", config.read_text(), flags=re.M)
                assert n == 1
                config.write_text(text)
            if command.startswith("cdl export"):  # in a process that has imported torch
                run_module(*command.split(), torch=True, cwd=tmp_path, check=True)
                continue
            subprocess.run(command, shell=True, cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "results/photos/index.html").is_file()
    assert "<h1>student: " in (tmp_path / "site/index.html").read_text()
    assert "tank" in cdl.load(tmp_path / "student").classes
    undo = "python student/student.py undo"
    assert f"`{undo}`" in page
    subprocess.run(undo, shell=True, cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "student/versions/1").is_dir()  # learnt, and undone
    assert "tank" not in (tmp_path / "student/classes.txt").read_text()
    assert "tank" not in cdl.load(tmp_path / "student").classes
