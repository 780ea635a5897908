"""Finished students on backbones of which only features are read."""

import shutil

import onnx_files
import torch
from safetensors.torch import save_file

from cdl.backbones import families
from cdl.backbones.fetch import fetch

FAMILIES = {  # an architecture of each, with the side of its input
    "cnn": ("mobilenetv3_small_050", 32),
    "tiny_vit": ("tiny_vit_5m_224", 64),
    "swin": ("swin_tiny_patch4_window7_224", 64),
    "fastvit": ("fastvit_t8", 64),
}


def finish(lab, inputs, here, family, method):
    """Train a student and return the folder of its run.

    Args:
        lab: the fixture.
        inputs: the fixture's folder of data and backbones, which is copied to `here`.
        here: a folder to create.
        family: one of `FAMILIES`, with random weights, or changes to an ONNX file.
        method: name of the method.
    """
    shutil.copytree(inputs, here)
    backbone = here / "vit_nano.safetensors"
    if isinstance(family, dict):
        block = onnx_files.write(here / "mine.onnx", **family)
        fetch(backbone, "onnx", block["onnx"], **onnx_files.NORMALIZED)
    else:
        model, size = FAMILIES[family]
        torch.manual_seed(0)
        save_file(families.create(model).state_dict(), here / "mine.safetensors")
        fetch(backbone, "file", str(here / "mine.safetensors"), model)
        block = {"file": str(here / "mine.safetensors"), "model": model, "size": size}
    grid = {"methods": [method], "distillers": ["none", "kd"], "exclude": [], "bounds": []}
    made = lab(
        {
            "backbones": {"vit_nano": {"embedded": None, **block}},
            "grid": grid,
            "methods": {"ranpac": {"projection": 32, "logit_scale": 10.0}},
        }
    )
    made.inputs = here
    run = made.student("none")
    made.learn_all(run)
    made.evaluate(run)
    results = made.folder.parent
    (results / "backbones").mkdir()
    (results / "data").mkdir()
    (results / "data" / "digits-0").symlink_to(here / "data")
    for file in here.glob("vit_*"):
        shutil.copy(file, results / "backbones" / file.name.replace(".", "-0."))
    return made.folder / run.folder
