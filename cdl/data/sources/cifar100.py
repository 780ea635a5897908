"""CIFAR-100 (Krizhevsky, 2009): 50,000 + 10,000 images, 32x32, 100 classes."""

from collections.abc import Sequence
from pathlib import Path

from cdl.data.sources import CLASSES, SPLITS, SourceFacts
from cdl.data.sources.items import Source, only
from cdl.runtime.fetching import Published
from cdl.runtime.options import text

ARCHIVE = Published(
    "cifar-100-binary.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    "md5:03b5dce01913d631647c71ecec9e9cb8",
)
LICENCE = (  # of all three CIFAR sources
    "published without a licence, with the wish that the technical report be cited (Krizhevsky, "
    "2009); rights in single images may be their owners'"
)


def read(root: str = "data/cifar100", classes: Sequence[int | str] | None = None) -> Source:
    """Read the binary edition: coarse label, fine label and 3x32x32 bytes per image.

    The fine labels are used. `classes`: see `cdl.data.sources.items.only`.
    """
    from cdl.data.sources.archives import read_binary_cifar

    folder = "cifar-100-binary"
    files = {split: [f"{folder}/{split}.bin"] for split in SPLITS}
    archive = Path(root, ARCHIVE.name)
    return only(read_binary_cifar(archive, files, f"{folder}/fine_label_names.txt", 2), classes)


CIFAR100 = SourceFacts(
    read=read,
    description="CIFAR-100: cifar-100-binary.tar.gz, fetched and checked.",
    options={
        "root": text("data/cifar100", "Folder of the archive.", minLength=1),
        "classes": CLASSES,
    },
    n_classes=100,
    n_images={"train": 50_000, "test": 10_000},
    licence=LICENCE,
    published=(ARCHIVE,),
)
