"""Where images come from: one function per source, each returning a `Source`.

A source names its classes and yields `Item`s of both splits in a fixed order; decoding happens
when `Item.read` is called. To add one, write a function and a line in `SOURCES`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from cdl.sources import SPLITS, folders
from cdl.sources import hub as hub_files
from cdl.sources.archives import cifar10, cifar100, imagenet_r
from cdl.sources.decoding import UnreadableImage, decode
from cdl.sources.items import Item, Source
from cdl.sources.tables import Columns, read_classes, read_rows


def digits(seed: int = 0, test_images: int = 360) -> Source:
    """Scikit-learn's 1,797 handwritten digits (8x8, UCI), split once, stratified by class.

    Args:
        seed: of the split, independent of the seeds of the runs.
        test_images: how many of the images are held out.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    index = np.arange(len(data.target))
    train, test = train_test_split(
        index, test_size=test_images, stratify=data.target, random_state=seed
    )
    pixels = np.rint(data.images * (255 / 16)).astype(np.uint8)[..., None].repeat(3, axis=-1)
    items = [
        Item(split, int(data.target[i]), f"digits[{i}]", partial(pixels.__getitem__, i))
        for split, indices in zip(SPLITS, (train, test), strict=True)
        for i in sorted(indices)
    ]
    return Source(tuple(str(d) for d in range(10)), items)


def cifar20(test: str = "test") -> Source:
    """Twenty classes of CIFAR-100, every fifth in alphabetical order; they ship with the package.

    100 training and 100 test images of 32x32 pixels each, and 20 validation images for choices of
    settings; `assets/README.md` is the card.

    Args:
        test: the images that runs are evaluated on, `test` or `validation`; the others are left
            out unread.
    """
    import pyarrow.parquet as pq

    rows = pq.read_table(str(files("cdl") / "assets" / "cifar20.parquet")).to_pylist()
    names = {row["label"]: row["class_name"] for row in rows}
    split = {"train": "train", test: "test"}
    items = [
        Item(split[row["split"]], row["label"], name, partial(decode, row["image"], name))
        for name, row in ((f"cifar20[{i}]", row) for i, row in enumerate(rows))
        if row["split"] in split
    ]
    return Source(tuple(names[label] for label in sorted(names)), items)


def parquet(
    path: str,
    train: str = "train*.parquet",
    test: str = "test*.parquet",
    image: str = "image",
    label: str = "label",
    class_name: str | None = None,
    file: str | None = None,
) -> Source:
    """Encoded images in Parquet files.

    Args:
        path: folder of the files.
        train: glob of the training files in it.
        test: glob of the test files.
        image: column of encoded bytes (or of structs with a field `bytes`).
        label: column of integers from 0.
        class_name: column with the label's name; None: the label is its own name.
        file: column with the image's own path, used to find one file in both splits; or None.
    """
    columns = Columns(image, label, class_name, file)
    tables = folders.tables_of(path, train, test)
    return Source(read_classes(path, tables, columns), _rows(path, tables, columns))


def hub(
    id: str,
    revision: str,
    root: str = "data/hub",
    train: str = hub_files.TRAIN,
    test: str = hub_files.TEST,
    image: str = "image",
    label: str = "label",
) -> Source:
    """An image dataset in Parquet on the Hugging Face Hub, as `fetch_dataset` has brought it.

    Args:
        id: of the repository, OWNER/NAME.
        revision: its commit.
        root: folder of all such datasets; this one lies in ROOT/ID/REVISION.
        train: glob of the training files in the repository.
        test: glob of the test files.
        image: column of encoded bytes (or of structs with a field `bytes`).
        label: column of integers from 0; classes have the names that the files give them, if any.
    """
    path, columns = str(hub_files.folder_of(root, id, revision)), Columns(image, label, None, None)
    tables = folders.tables_of(path, train, test)
    classes = read_classes(path, tables, columns)
    names = hub_files.class_names(tables["train"][0], label, classes)
    return Source(names, _rows(path, tables, columns))


def _rows(path: str, tables: Mapping[str, Sequence[Path]], columns: Columns) -> Iterator[Item]:
    for split, parts in tables.items():
        for part in parts:
            for i, row in enumerate(read_rows(part, columns)):
                name = row.file or f"{part.relative_to(path)}[{i}]"
                yield Item(split, row.label, name, partial(decode, row.image, name))


def folder(
    path: str,
    train: str = "train",
    test: str = "test",
    split: Mapping[str, Any] | None = None,
    domains: bool = False,
) -> Source:
    """Images in `path/SPLIT/CLASS/IMAGE`, or in `path/CLASS/IMAGE`.

    Args:
        path: the folder.
        train: sub-folder of the training images, or a text file in `path` with one image a
            line, written `class/name.jpg`.
        test: the same for the test images.
        split: instead of both, the share of `test` images and a `seed`: see `folders.drawn`.
        domains: whether there are folders of domains, `DOMAIN/CLASS/IMAGE`, with the same classes.
    """
    listing = folders.images_of(path, train, test, split, domains)
    if split is not None:
        listing = folders.drawn(listing, split)
    label = {name: i for i, name in enumerate(listing.classes)}
    items = [
        Item(i.split, label[i.label], str(i.path.relative_to(path)), partial(_open, i.path))
        for i in listing.images
    ]
    return Source(listing.classes, items, listing.skipped)


SOURCES: dict[str, Callable[..., Source]] = {
    "digits": digits,
    "cifar20": cifar20,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "imagenet_r": imagenet_r,
    "parquet": parquet,
    "hub": hub,
    "folder": folder,
}


def _open(file: Path) -> np.ndarray:
    try:
        if file.exists() and not file.is_file():  # a pipe or a device might never end
            raise UnreadableImage(f"{file} is no file")
        raw = file.read_bytes()
    except OSError as error:
        raise UnreadableImage(f"{file} cannot be read: {error.strerror}") from error
    return decode(raw, str(file))
