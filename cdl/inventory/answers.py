"""The items that a teacher of one's own must answer. Does not import torch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from cdl.data.answers import write_items
from cdl.data.sources import SOURCES
from cdl.runtime.errors import CdlError
from cdl.study.grid import Grid


def list_items(grid: Grid, dataset: str | None, output: Path) -> int:
    """Write the list of items of a dataset and return their number.

    Args:
        grid: grid of `without_teacher`.
        dataset: label of the dataset; None for the only one.
        output: CSV file to write; images that are no files are written into a folder beside it.

    Raises:
        CdlError: the dataset is unknown or not of images, or the file exists.
    """
    names = list(dict.fromkeys(block.name for block in grid.datasets.values()))
    if dataset is None and len(names) > 1:
        raise CdlError(f"--dataset: is missing; expected one of {', '.join(names)}")
    label = dataset or next(iter(grid.datasets))
    if label not in grid.datasets:
        raise CdlError(f"--dataset: {label!r} is not one of {', '.join(grid.datasets)}")
    arguments = dict(grid.source(label)["source"])
    source = SOURCES[arguments.pop("name")].read(**arguments)
    if source.modality != "images":
        raise CdlError(f"datasets.{label}: has {source.modality}; expected images")
    items = _items(source, Path(arguments.get("path") or "."), output.with_suffix(""))
    return write_items(output, items, source.classes)


def without_teacher(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration of the same data whose grid reads no teacher."""
    pair = config["grid"]["pairs"][0] | {"teacher": None, "teacher_method": None}
    grid = {**config["grid"], "pairs": [pair], "distillers": ["none"], "methods": ["head_only"]}
    grid |= {"exclude": [], "baseline": "none", "bounds": [], "datasets": []}
    datasets = {name: {**block, "labels": None} for name, block in config["datasets"].items()}
    return {**config, "datasets": datasets, "grid": grid, "deploy": None, "tune": None}


def _items(source: Any, root: Path, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield name and path of each image; write those that are no files into a folder."""
    for number, item in enumerate(source.items):
        path = root / item.name
        if not path.is_file():
            path = folder / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(item.read()).save(path)
        yield item.name, str(path.absolute())
