"""Write `architectures.csv` and `docs/backbones.md` from the installed timm.

python -m tools.tabulate_backbones
"""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import timm

from cdl.backbones import families
from cdl.backbones.architectures import FIELDS, TABLE, Architecture, architectures
from cdl.runtime.errors import CdlError

DOCUMENT = Path(__file__).parents[1] / "docs" / "backbones.md"
_BEGIN, _END = "<!-- made by tools.tabulate_backbones -->", "<!-- end -->"


def rows(names: Iterable[str]) -> Iterator[dict[str, str]]:
    """Yield the table's row of each architecture, which is built on the meta device."""
    tags: dict[str, list[str]] = {}
    for full in timm.list_pretrained():
        name, _, tag = full.partition(".")
        config = timm.get_pretrained_cfg(full)
        if tag and config is not None and config.hf_hub_id:
            tags.setdefault(name, []).append(tag)
    for name in names:
        yield dict.fromkeys(FIELDS, "") | {"tags": " ".join(tags.get(name, []))} | row(name)


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
        "entrances": " ".join(families.entrances(model)),
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


def document(path: Path = DOCUMENT) -> str:
    """Return the page with the part between its two markers made from the table."""
    before, rest = path.read_text().split(_BEGIN)
    _, after = rest.split(_END)
    known = list(architectures().values())
    kinds = Counter(a.kind for a in known if a.shape)
    accepted = ", ".join(f"`{kind}` ({n})" for kind, n in sorted(kinds.items()))
    refused = Counter(a.kind or a.refused.split()[0] for a in known if not a.shape)
    largest = ", ".join(f"`{kind}` ({n})" for kind, n in refused.most_common(8))
    text = [
        f"{kinds.total()} of {len(known)} architectures are accepted, with {_tags(known)} tags on",
        f"the Hub: {accepted}. The others are refused, most of them since they are no sequence of",
        f"blocks over the same tokens: {largest} and {len(refused) - 8} more classes.",
    ]
    return before + _BEGIN + "\n" + "\n".join(text) + "\n" + _END + after


def _tags(known: Iterable[Architecture]) -> int:
    return sum(len(a.tags) for a in known if a.shape)


if __name__ == "__main__":
    write()
    DOCUMENT.write_text(document())
