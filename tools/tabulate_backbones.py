"""Write `architectures.csv` and `docs/backbones.md` from the installed timm.

python -m tools.tabulate_backbones
"""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

import timm

from cdl.backbones import families
from cdl.backbones.architectures import FIELDS, TABLE, Architecture, architectures
from cdl.runtime.errors import CdlError

DOCUMENT = Path(__file__).parents[1] / "docs" / "backbones.md"
_USUAL = " is not a sequence of blocks over the same tokens"
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
    accepted = [
        "| architectures | example tag | pooled feature | besides a plain ViT |",
        "|" + "---|" * 4,
    ]
    kinds: dict[tuple[str, str, str], list[Architecture]] = {}
    for a in (a for a in known if a.shape):
        kinds.setdefault((a.kind, a.parts, a.pool), []).append(a)
    for (kind, parts, pool), group in sorted(kinds.items()):
        example = next((f"`{a.name}.{a.tags[0]}`" for a in group if a.tags), f"`{group[0].name}`")
        accepted.append(f"| {len(group)} of `{kind}` | {example} | {pool} | {parts} |")
    refused: dict[str, list[str]] = {}
    for a in (a for a in known if not a.shape):
        refused.setdefault(a.refused, []).append(a.name)
    usual = sorted(why for why in refused if why.endswith(_USUAL))
    lines = [f"* {refused[why][0]}: {why}" for why in sorted(refused.keys() - set(usual))]
    classes = (f"`{why.removesuffix(_USUAL)}` ({len(refused[why])})" for why in usual)
    lines.append(f"* those of a class that{_USUAL}: {', '.join(classes)}")
    n = sum(len(group) for group in kinds.values())
    text = f"{n} of {len(known)} architectures are accepted, with {_tags(known)} tags on the Hub."
    body = [text, "", *accepted, "", "## Refused", "", *lines]
    return before + _BEGIN + "\n" + "\n".join(body) + "\n" + _END + after


def _tags(known: Iterable[Architecture]) -> int:
    return sum(len(a.tags) for a in known if a.shape)


if __name__ == "__main__":
    write()
    DOCUMENT.write_text(document())
