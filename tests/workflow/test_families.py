"""The whole workflow for teacher and student of different families, with random weights."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_files
import pandas as pd
import torch
import yaml
from PIL import Image
from runs import planned, run
from safetensors.torch import save_file

import cdl
from cdl.backbones import families
from cdl.deployment.export import export

RUN = "results/families/digits/l2p/{}-vit_nano-from-dino-q-vit_nano/seed0/results.json"
SHAPE = {"img_size": 28, "embed_dim": 48, "depth": 3, "num_heads": 3}
OVERLAY = """
name: families
backbones:
  dino: {file: dino.safetensors, model: vit_small_patch14_reg4_dinov2.lvd142m, size: 28}
grid:
  pairs: [{teacher: dino, student: vit_nano}]
  methods: [l2p]
  distillers: [fitnets, cdl_prompt]
compute: {targets: online}  # fewer jobs
distillers:
  cdl_prompt: {mapping: linear}
protocol: {query: self}
"""


def test_a_dinov2_with_registers_teaches_a_plain_student(tmp_path):
    """Use patches of 14 at 28 px and of 4 at 8 px: the same number of patch tokens."""
    torch.manual_seed(0)
    model = families.create("vit_small_patch14_reg4_dinov2", SHAPE)
    header = {key: str(value) for key, value in SHAPE.items()}
    save_file(model.state_dict(), tmp_path / "dino.safetensors", header)
    students = [RUN.format(distiller) for distiller in ("fitnets", "cdl_prompt")]
    run(tmp_path, *students, overlay=OVERLAY)
    results = [json.loads((tmp_path / path).read_text()) for path in students]
    taught = [r["learner"] for r in results]
    assert {s["distiller"]["name"] for s in taught} == {"fitnets", "cdl_prompt"}
    assert all(spec["sizes"] == {"dino": 28} for spec in taught)
    assert all(0 <= share <= 100 for r in results for share in r["matrix"][-1])


def test_an_onnx_file_teaches_another_one_and_is_in_the_export(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = {"large": {"opset": 13}, "small": {}}
    blocks = {name: onnx_files.write(Path(f"{name}.onnx"), **how) for name, how in files.items()}
    grid = {"methods": ["head_only"], "distillers": ["none", "kd"]}
    grid |= {"pairs": [{"teacher": "large", "student": "small"}]}
    methods = {"head_only": {"alignment": {"preset": "slca"}}}
    study = yaml.safe_dump({"name": "own", "backbones": blocks, "grid": grid, "methods": methods})
    run(tmp_path, overlay=study)
    assert planned(tmp_path, overlay=study) == {}
    table = pd.read_csv("results/own/tables/results.csv", keep_default_na=False)
    assert set(table["backbone"]) == {"large", "small"} and "kd" in set(table["distiller"])
    (folder,) = Path("results/own/digits/head_only").glob("kd-*/seed0")
    assert export(folder, Path("made")).parity.holds
    rng = np.random.default_rng(0)
    images = [f"{i}.png" for i in range(20)]
    for name in images:
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(name)
    command = [sys.executable, "made/student.py", "predict", *images, "--top", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = [line.split()[1] for line in done.stdout.splitlines()]
    assert found == cdl.load(folder).predict(images) and len(set(found)) > 1
    onnx_files.write(Path("small.onnx"), licence="MIT")
    jobs = planned(tmp_path, overlay=study)
    assert jobs["fetch_backbone"] == 1 and jobs["distil"] == 2
