"""The commands of `docs/start.md` lead from a folder of photos to a student that learns on."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
OFFLINE = {  # as the page says, for a run without a download
    "small: {timm: vit_small_patch16_224.augreg_in21k_ft_in1k}": "small: "
    "{embedded: vit_nano_patch4_32}",
    "view: {size: 224, test_resize: 256}": "view: {size: 32}",
}


@pytest.mark.slow
def test_the_commands_lead_from_photos_to_a_student_that_learns(tmp_path):
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
    for language, block in re.findall(r"^```(sh|yaml)\n(.*?)^```$", page, re.M | re.S):
        if language == "yaml":
            for shown, used in OFFLINE.items():
                assert shown in block
                block = block.replace(shown, used)
            (tmp_path / "study/config.yaml").write_text(block)
            continue
        for command in block.splitlines():
            subprocess.run(command, shell=True, cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "results/mine/index.html").is_file()
    assert (tmp_path / "student/versions/1").is_dir()  # learnt, and undone
    assert "tank" not in (tmp_path / "student/classes.txt").read_text()
