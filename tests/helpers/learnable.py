"""Small finished runs whose students can learn on after their export, made in process."""

from pathlib import Path

from lab import Lab, make_grid

ALIGNED = {"preset": "slca", "statistic": "centroid", "samples": 32}
CHANGES = {
    "methods": {
        "ranpac": {"projection": 64},
        "coda_prompt": {"pool_per_task": 4, "layers": [0], "alignment": ALIGNED},
    },
    "datasets": {"digits": {"images_per_class": 20, "test_images_per_class": 8}},
    "grid": {
        "methods": ["ranpac", "coda_prompt"],
        "distillers": ["none", "kd_token"],
        "exclude": [{"method": "ranpac", "distiller": "kd_token"}],
    },
}


def finish(folder, inputs, method, distiller="none", changes=CHANGES):
    """Train and evaluate a student in a results folder; return the folder of its run."""
    lab = Lab(make_grid(changes), inputs, folder / "results" / "tiny")
    key = method, distiller, "student"
    run = next(r for r in lab.grid.runs if (r.method.name, r.distiller.name, r.role) == key)
    lab.learn_all(run)
    lab.evaluate(run)
    place_inputs(folder / "results", inputs)
    return lab.folder / run.folder


def place_inputs(results, inputs, backbones=("vit_micro", "vit_nano"), dataset="digits"):
    """Link data and backbones to where a results folder has them."""
    for name in backbones:
        for end in ("safetensors", "json"):
            link(results / "backbones" / f"{name}-0.{end}", inputs / f"{name}.{end}")
    link(results / "data" / f"{dataset}-0", inputs / "data")


def link(path: Path, target: Path):
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.symlink_to(target)
