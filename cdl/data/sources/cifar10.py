"""CIFAR-10 (Krizhevsky, 2009): 50,000 + 10,000 images, 32x32 pixels, 10 classes."""

from collections.abc import Sequence
from pathlib import Path

from cdl.data.sources import CLASSES, SourceFacts
from cdl.data.sources.cifar100 import LICENCE
from cdl.data.sources.items import Source, only
from cdl.runtime.fetching import Published
from cdl.runtime.options import text

ARCHIVE = Published(
    "cifar-10-binary.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "md5:c32a1d4ab5d03f1284b67883e8d87530",
)


def read(root: str = "data/cifar10", classes: Sequence[int | str] | None = None) -> Source:
    """Read the binary edition: a label and 3x32x32 bytes per image.

    The training images are in five files. `classes`: see `cdl.data.sources.items.only`.
    """
    from cdl.data.sources.archives import read_binary_cifar

    folder = "cifar-10-batches-bin"
    train = [f"{folder}/data_batch_{i}.bin" for i in range(1, 6)]
    files = {"train": train, "test": [f"{folder}/test_batch.bin"]}
    archive = Path(root, ARCHIVE.name)
    return only(read_binary_cifar(archive, files, f"{folder}/batches.meta.txt", 1), classes)


CIFAR10 = SourceFacts(
    read=read,
    description="CIFAR-10: cifar-10-binary.tar.gz, fetched and checked.",
    options={
        "root": text("data/cifar10", "Folder of the archive.", minLength=1),
        "classes": CLASSES,
    },
    n_classes=10,
    n_images={"train": 50_000, "test": 10_000},
    licence=LICENCE,
    published=(ARCHIVE,),
)
