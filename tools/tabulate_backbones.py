"""Write `architectures.csv` and `docs/backbones.md` from the installed timm.

python -m tools.tabulate_backbones
"""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import timm

from cdl.backbones import extractor, families
from cdl.backbones.architectures import FIELDS, TABLE, Architecture, architectures
from cdl.runtime.errors import CdlError

DOCUMENT = Path(__file__).parents[1] / "docs" / "backbones.md"
_BEGIN, _END = "<!-- made by tools.tabulate_backbones -->", "<!-- end -->"


def rows(names: Iterable[str]) -> Iterator[dict[str, str]]:
    """Yield the table's row of each architecture, which is built on the meta device."""
    tags: dict[str, dict[str, str]] = {}
    for full in timm.list_pretrained():
        name, _, tag = full.partition(".")
        config = timm.get_pretrained_cfg(full)
        if tag and config is not None and config.hf_hub_id:
            tags.setdefault(name, {})[tag] = str(config.input_size[-1])
    for name in names:
        found = dict.fromkeys(FIELDS, "") | row(name)
        size, own = found["size"], tags.get(name, {}).items()
        found["tags"] = " ".join(f"{t}:{s}" if size and s != size else t for t, s in own)
        yield found


def row(name: str) -> dict[str, str]:
    """Build an architecture and return its columns, without `tags`."""
    try:
        model = families.create(name, device="meta")
    except CdlError as error:
        return {"architecture": name, "refused": str(error)}
    found = {"architecture": name, "kind": type(model).__name__}
    try:
        families.validate(model)
    except CdlError as error:
        return found | {"refused": str(error)} | _features(name, model)
    shape = families.shape_of(model)
    return found | {
        "width": str(shape.width),
        "depth": str(shape.depth),
        "patch": str(shape.patch),
        "size": str(model.patch_embed.img_size[0]),
        "class_token": "yes" if shape.class_token else "no",
        "pool": families.pooling(model),
        "parts": families.parts(model),
        "entrances": " ".join(families.entrances(model)),
    }


def _features(name: str, model: Any) -> dict[str, str]:
    """Return the columns of a model that cannot be prompted; why if it gives no feature either."""
    try:
        size = extractor.input_size(model)
        width, step = extractor.validate(model, size), extractor.step(name, model)
    except CdlError as error:
        return {"refused": str(error)}
    return {"width": str(width), "patch": str(step or ""), "size": str(size)}


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


def document(path: Path = DOCUMENT) -> str:
    """Return the page with the part between its two markers made from the table."""
    before, rest = path.read_text().split(_BEGIN)
    _, after = rest.split(_END)
    known = list(architectures().values())
    prompted = [a for a in known if a.shape and not a.shape.unprompted]
    features = [a for a in known if a.shape and a.shape.unprompted]
    kinds = Counter(a.kind for a in prompted)
    accepted = ", ".join(f"`{kind}` ({n})" for kind, n in sorted(kinds.items()))
    others = Counter(a.kind for a in features)
    largest = ", ".join(f"`{kind}` ({n})" for kind, n in others.most_common(8))
    text = [
        f"Of {len(known)} architectures {len(prompted)} can be prompted, with {_tags(prompted)} "
        f"tags on the Hub: {accepted}. Features of {len(features)} others, with {_tags(features)} "
        f"tags, are read by heads only: {largest} and {len(others) - 8} more classes. "
        f"{len(known) - len(prompted) - len(features)} give no vector.",
    ]
    return before + _BEGIN + "\n" + "\n".join(text) + "\n" + _END + after


def _tags(known: Iterable[Architecture]) -> int:
    return sum(len(a.tags) for a in known)


if __name__ == "__main__":
    write()
    DOCUMENT.write_text(document())
