"""Table of timm's architectures for planning; imports neither timm nor torch.

`python -m tools.tabulate_backbones` writes the table; a test compares it with the installed timm.
"""

import csv
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from cdl.backbones.shape import BackboneShape, features_shape
from cdl.runtime.errors import CdlError

TABLE = Path(__file__).with_name("architectures.csv")
FIELDS = (
    "architecture", "kind", "width", "depth", "patch", "size", "class_token", "pool", "parts",
    "entrances", "refused", "tags",
)  # fmt: skip
_EXAMPLE = "vit_base_patch16_224.augreg_in21k_ft_in1k"
_SIZES = ("tiny", "small", "base", "large", "huge")


@dataclass(frozen=True)
class Architecture:
    """A row of the table.

    name: timm's name.
    kind: name of timm's class.
    shape: None if the architecture is refused; without blocks if only its feature is read.
    pool: how tokens are pooled.
    size: side of its default input in pixels.
    parts: differences from a plain ViT.
    refused: why it cannot be prompted, or gives no feature; empty if it can.
    tags: of its weights on the Hub.
    sizes: sides of the images of tags for which they differ from `size`.
    """

    name: str
    kind: str
    shape: BackboneShape | None
    pool: str
    size: int
    parts: str
    refused: str
    tags: tuple[str, ...]
    sizes: Mapping[str, int]


@cache
def architectures() -> dict[str, Architecture]:
    """Return all architectures of timm by name."""
    with open(TABLE, newline="") as file:
        return {row["architecture"]: _parse_row(row) for row in csv.DictReader(file)}


def _parse_row(row: dict[str, str]) -> Architecture:
    shape, name = None, row["architecture"]
    width, depth, patch, size = (int(row[k] or 0) for k in ("width", "depth", "patch", "size"))
    if depth:
        entrances = tuple(row["entrances"].split())
        shape = BackboneShape(width, depth, patch, row["class_token"] == "yes", entrances=entrances)
    elif width:
        shape = features_shape(width, patch or None, size, unprompted(name, row["refused"]))
    tags = [tag.partition(":") for tag in row["tags"].split()]
    return Architecture(
        name=name,
        kind=row["kind"],
        shape=shape,
        pool=row["pool"],
        size=size,
        parts=row["parts"],
        refused=row["refused"],
        tags=tuple(tag for tag, _, _ in tags),
        sizes={tag: int(side) for tag, _, side in tags if side},
    )


def unprompted(model: str, why: str) -> str:
    """Return the sentence that a model cannot be prompted, with one that can."""
    return f"{model!r} cannot be prompted: {why}; use for example {similar(model)}"


def find(model: str) -> Architecture:
    """Return the architecture of a timm model, whose name may have a tag.

    Raises:
        CdlError: the architecture does not exist or gives no feature; the message suggests a
            similar one.
    """
    known, (name, _, tag) = architectures(), model.partition(".")
    if name not in known:
        close = difflib.get_close_matches(name, [k for k, a in known.items() if a.shape], 1)
        raise CdlError(
            f"{model!r} is not an architecture of timm; did you mean "
            f"{close[0] if close else similar(name)}?"
        )
    found = known[name]
    if found.shape is None:
        raise CdlError(f"{model!r}: {found.refused}; use for example {similar(name)}")
    if found.shape.unprompted:
        size = found.sizes.get(tag, found.size)
        found = replace(found, size=size, shape=replace(found.shape, size=size))
    return found


def find_weights(tag: str) -> Architecture:
    """Return the architecture of weights on the Hub.

    Raises:
        CdlError: see `find`; or the tag is missing or not on the Hub.
    """
    known, own = find(tag), tag.partition(".")[2]
    if not own:
        example = f"{known.name}.{known.tags[0]}" if known.tags else _EXAMPLE
        raise CdlError(
            f"{tag!r} is not a full tag: expected ARCHITECTURE.TAG, for example {example} (without "
            "TAG the weights depend on timm's version)"
        )
    if own not in known.tags:
        has = ", ".join(known.tags) or "none"
        raise CdlError(f"{tag!r} is not on the Hub; tags of {known.name}: {has}")
    return known


def similar(name: str) -> str:
    """Return a plain ViT of the size that a name contains, base by default."""
    size = next((word for word in _SIZES if word in name), "base")
    return f"vit_{size}_patch{14 if size == 'huge' else 16}_224"
