"""A case that can be measured: its arguments, its configuration, and inputs of random images."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from cdl.runtime.errors import CdlError
from cdl.study.configuration import ConfigError, merge
from cdl.study.validation import shape_of

WIDE = 100  # ten components for each of ten tasks need a query of at least as many numbers
NARROW = {"methods": {"coda_prompt": {"pool": 50}}, "distillers": {"cdl_prompt": {"pool": 50}}}


@dataclass(frozen=True)
class Case:
    """What is measured: every field is an argument of the scripts."""

    teacher: str = "vit_micro_patch4_32"
    student: str = "vit_nano_patch4_32"
    size: int = 32
    pixels: int | None = None
    method: str = "coda_prompt"
    distiller: str = "kd_prompt"
    batch: int = 64
    tasks: int = 10
    classes: int = 100
    task: int = -1
    steps: int = 20
    warm_up: int = 5
    test_images: int = 1000
    test_batch: int | None = None
    device: str = "auto"
    precision: str = "fp32"
    capture: bool = False
    threads: int = 1
    clock: str = "wall"
    options: tuple[str, ...] = ()


_HELP = {
    "teacher": "embedded name, .safetensors file, or timm architecture (random weights)",
    "student": "as --teacher",
    "size": "side of a view",
    "pixels": "side of the stored images; as --size if not given",
    "task": "the task learnt; negative counts from the last, which has the largest pool",
    "steps": "timed steps",
    "warm_up": "steps before the clock starts",
    "test_batch": "images per batch of the evaluation; if not given, those of a run",
    "threads": "of torch on the CPU",
    "clock": "wall, or cpu: CPU seconds of this process, for one thread on a busy machine",
}


def command(main: Callable[[], Any]) -> None:
    """Run a script; end it with one sentence if its arguments are wrong."""
    try:
        main()
    except (CdlError, ConfigError) as error:
        sys.exit(f"benchmark: {error}")


def arguments(description: str) -> argparse.ArgumentParser:
    """Return a parser whose arguments are the fields of a case."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    for field in fields(Case):
        name = f"--{field.name.replace('_', '-')}"
        if field.name == "options":
            parser.add_argument(
                "--set",
                dest="options",
                action="append",
                default=[],
                metavar="FIELD=VALUE",
                help="any field of the configuration, e.g. methods.coda_prompt.pool=50",
            )
        elif field.type is bool:
            parser.add_argument(name, action="store_true")
        else:
            kind = str if field.type is str else int
            parser.add_argument(name, type=kind, default=field.default, help=_HELP.get(field.name))
    return parser


def case_of(given: argparse.Namespace) -> Case:
    """Return the case that parsed arguments describe."""
    values = {field.name: getattr(given, field.name) for field in fields(Case)}
    return Case(**values | {"options": tuple(given.options)})


def configuration(case: Case, folder: Path, paths: dict[str, str]) -> dict[str, Any]:
    """Return the configuration of a case; `paths` are its backbones by role.

    Everything is at its default; pools are 50, as in `config/proxy/`, where 10 per task do not
    fit the student's width.
    """
    config: dict[str, Any] = {
        "name": "benchmark",
        "datasets": {
            "random": {
                "source": {"folder": {"path": str(folder / "images")}},
                "tasks": case.tasks,
                "view": {"size": case.size},
            }
        },
        "backbones": {role: {"file": path} for role, path in paths.items()},
        "protocol": {"class_order": "natural"},
        "training": {"epochs": 1, "batch_size": case.batch},
        "compute": {"precision": case.precision},
        "grid": {
            "methods": [case.method],
            "distillers": [case.distiller],
            "pairs": [{"teacher": "teacher", "student": "student"}],
        },
    }
    if shape_of("student", "file", paths["student"]).width < WIDE:
        config = merge(config, NARROW)
    for option in case.options:
        field, _, text = option.partition("=")
        value = yaml.safe_load(text)
        for key in reversed(field.split(".")):
            value = {key: value}
        config = merge(config, value)
    return config


def random_images(case: Case, task: int, folder: Path) -> None:
    """Write noise as PNG: enough for all steps in the classes of the task, else one per class."""
    if case.classes % case.tasks:
        raise CdlError(f"--classes: {case.classes} cannot be shared by {case.tasks} tasks")
    share, random = case.classes // case.tasks, np.random.default_rng(0)
    side = case.pixels or case.size
    many, more = divmod((case.warm_up + case.steps) * case.batch, share)
    for label in range(case.classes):
        mine = many + (label % share < more) if label // share == task else 0
        counts = {"train": max(1, mine), "test": -(-case.test_images // case.classes)}
        for split, n in counts.items():
            target = folder / "images" / split / f"{label:04}"
            target.mkdir(parents=True)
            for i in range(n):
                noise = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
                Image.fromarray(noise).save(target / f"{i}.png", compress_level=0)


def backbone_file(name: str, size: int, folder: Path) -> str:
    """Return the path of a backbone file: an embedded one, one given, or random weights."""
    embedded = Path(str(files("cdl") / "assets" / f"{name}.safetensors"))
    if embedded.exists():
        return str(embedded)
    if name.endswith(".safetensors"):
        return name
    if name not in timm.list_models("vit_*"):
        raise CdlError(f"{name!r} is no embedded backbone, .safetensors file or ViT of timm")
    torch.manual_seed(0)
    vit = timm.create_model(name, pretrained=False, num_classes=0, img_size=size)
    header = {
        "img_size": size,
        "patch_size": vit.patch_embed.patch_size[0],
        "embed_dim": vit.embed_dim,
        "depth": len(vit.blocks),
        "num_heads": vit.blocks[0].attn.num_heads,
        "mean": "0.5 0.5 0.5",
        "std": "0.5 0.5 0.5",
    }
    path = folder / f"random-{name}.safetensors"
    state = {key: tensor.contiguous() for key, tensor in vit.state_dict().items()}
    save_file(state, path, {key: str(value) for key, value in header.items()})
    return str(path)
