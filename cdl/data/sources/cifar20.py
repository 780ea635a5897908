"""Twenty classes of CIFAR-100 (every fifth alphabetically), part of the package."""

from collections.abc import Sequence
from functools import partial
from importlib.resources import files

from cdl.data.sources import CLASSES, SourceFacts
from cdl.data.sources.cifar100 import LICENCE
from cdl.data.sources.items import Item, Source, only
from cdl.runtime.options import choice


def read(test: str = "test", classes: Sequence[int | str] | None = None) -> Source:
    """Read twenty classes with 100 training and 100 test images each, 32x32 pixels.

    Each class also has 20 validation images for choosing settings; `assets/README.md` is the data
    card.

    Args:
        test: images that runs are evaluated on, `test` or `validation`; those of the other kind
            are not decoded.
        classes: see `cdl.data.sources.items.only`.
    """
    import pyarrow.parquet as pq

    from cdl.device.decoding import decode

    rows = pq.read_table(str(files("cdl") / "assets" / "cifar20.parquet")).to_pylist()
    names = {row["label"]: row["class_name"] for row in rows}
    split = {"train": "train", test: "test"}
    items = [
        Item(split[row["split"]], row["label"], name, partial(decode, row["image"], name))
        for name, row in ((f"cifar20[{i}]", row) for i, row in enumerate(rows))
        if row["split"] in split
    ]
    return only(Source(tuple(names[label] for label in sorted(names)), items), classes)


CIFAR20 = SourceFacts(
    read=read,
    description="Twenty classes of CIFAR-100 that ship with cdl: 100 training and 100 test images "
    "each, 32x32, no download.",
    options={
        "test": choice(
            "test",
            ["test", "validation"],
            "Images that runs are evaluated on: test, or 20 validation images a class, for "
            "choosing settings.",
        ),
        "classes": CLASSES,
    },
    n_classes=20,
    n_images={"train": 2_000, "test": 2_000},
    licence=LICENCE,
)
