"""Packed data that several processes prepare and read at once are always complete."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from cdl.data.packed import Packed
from cdl.data.packing import prepare

AGAIN = """
import sys
from cdl.data.packing import prepare
for _ in range(15):
    prepare(sys.argv[1], {"name": "folder", "path": sys.argv[2]})
"""


@pytest.mark.slow
def test_two_processes_prepare_one_source_while_a_third_reads_it(tmp_path):
    for split in ("train", "test"):
        for c, name in enumerate(("ant", "bee")):
            (tmp_path / "raw" / split / name).mkdir(parents=True)
            for i in range(10):
                pixels = np.full((8, 8, 3), (c, i, split == "test"), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "raw" / split / name / f"{i}.png")
    packed = tmp_path / "packed"
    prepare(packed, {"name": "folder", "path": str(tmp_path / "raw")})
    before = Packed(packed, "train").fingerprint
    writers = [
        subprocess.Popen([sys.executable, "-c", AGAIN, packed, tmp_path / "raw"]) for _ in range(2)
    ]
    reads = 0
    while any(writer.poll() is None for writer in writers):
        train = Packed(packed, "train")
        train.pixels(torch.arange(20))  # compares each image with its hash
        assert train.fingerprint == before
        reads += 1
    assert [writer.returncode for writer in writers] == [0, 0]
    assert reads > 1
    assert len(list(packed.iterdir())) == 5, "no temporary file is left"
