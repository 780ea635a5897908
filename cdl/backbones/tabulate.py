"""Make `architectures.csv` and `docs/backbones.md` from the timm that is installed.

python -m cdl.backbones.tabulate
"""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

import timm

from cdl.backbones import families
from cdl.backbones.architectures import FIELDS, TABLE
from cdl.runtime.errors import CdlError


def rows(names: Iterable[str]) -> Iterator[dict[str, str]]:
    """Yield the table's row of each architecture, found by building it on the meta device."""
    tags: dict[str, list[str]] = {}
    for full in timm.list_pretrained():
        name, _, tag = full.partition(".")
        config = timm.get_pretrained_cfg(full)
        if tag and config is not None and config.hf_hub_id:
            tags.setdefault(name, []).append(tag)
    for name in names:
        yield dict.fromkeys(FIELDS, "") | {"tags": " ".join(tags.get(name, []))} | row(name)


def row(name: str) -> dict[str, str]:
    """Return what is found by building an architecture."""
    try:
        model = families.create(name, device="meta")
    except CdlError as error:
        return {"architecture": name, "refused": str(error)}
    found = {"architecture": name, "kind": type(model).__name__}
    try:
        families.validate(model)
    except CdlError as error:
        return found | {"refused": str(error)}
    shape = families.shape_of(model)
    return found | {
        "width": str(shape.width),
        "depth": str(shape.depth),
        "patch": str(shape.patch),
        "size": str(model.patch_embed.img_size[0]),
        "class_token": "yes" if shape.class_token else "no",
        "pool": families.pooling(model),
        "parts": families.parts(model),
    }


def read(path: Path = TABLE) -> list[dict[str, str]]:
    """Return the rows of the table."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path = TABLE) -> None:
    """Write the table of all architectures."""
    with open(path, "w", newline="") as file:
        table = csv.DictWriter(file, FIELDS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows(timm.list_models()))


if __name__ == "__main__":
    write()
