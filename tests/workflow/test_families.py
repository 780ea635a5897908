"""The whole workflow for teacher and student of different families, with random weights."""

import json

import torch
from runs import run
from safetensors.torch import save_file

from cdl.backbones import families

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
