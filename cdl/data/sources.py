"""Where images come from: one function per source, each returning a `Source`.

A source names its classes and yields `Item`s of both splits in a fixed order; decoding happens
when `Item.read` is called. To add one, write a function and a line in `SOURCES`.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from cdl.data.archives import cifar100, imagenet_r
from cdl.data.items import SPLITS, Item, Source, class_names, decode
from cdl.runtime.errors import CdlError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png"}


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
    import pyarrow as pa
    import pyarrow.parquet as pq

    def read(part: Path, columns: list[str]) -> pa.Table:
        try:
            known = pq.read_schema(part).names
            missing = [column for column in columns if column not in known]
            if missing:
                raise CdlError(f"{part} has no column {missing[0]!r}; it has {known}")
            return pq.read_table(part, columns=columns)
        except (OSError, pa.ArrowException) as error:
            raise CdlError(f"{part} cannot be read as Parquet ({error})") from error

    globs = {"train": train, "test": test}
    files = {split: sorted(Path(path).glob(glob)) for split, glob in globs.items()}
    for split, found in files.items():
        if not found:
            raise CdlError(f"no {split} file matches {globs[split]!r} in the folder {path!r}")
    wanted = [c for c in (image, label, class_name, file) if c]
    names: dict[int, str] = {}
    for paths in files.values():
        for part in paths:
            columns = read(part, [c for c in (label, class_name) if c])
            labels = columns[label].to_pylist()
            texts = columns[class_name].to_pylist() if class_name else map(str, labels)
            for value, text in set(zip(labels, texts, strict=True)):
                if not isinstance(value, int) or value < 0:
                    raise CdlError(
                        f"{part}: label {value!r} in column {label!r}; labels are integers from 0"
                    )
                if names.setdefault(value, text) != text:
                    raise CdlError(
                        f"{part}: label {value} is named {text!r}, elsewhere {names[value]!r}"
                    )

    def rows() -> Iterator[Item]:
        for split, paths in files.items():
            for part in paths:
                table = read(part, wanted)
                for i, row in enumerate(table.to_pylist()):
                    raw = row[image]
                    raw = raw["bytes"] if isinstance(raw, dict) else raw
                    name = row[file] if file else f"{part.relative_to(path)}[{i}]"
                    yield Item(split, row[label], name, partial(decode, raw, name))

    return Source(class_names(names, path), rows())


def folder(path: str, train: str = "train", test: str = "test") -> Source:
    """Images in `path/split/class/*.jpg|png`, or in `path/class/` with two split files.

    Args:
        path: the folder.
        train: sub-folder of the training images, or a text file in `path` with one image a
            line, written `class/name.jpg`.
        test: the same for the test images.
    """
    root = Path(path)
    listed: list[tuple[str, str, Path]] = []
    for split, entry in zip(SPLITS, (train, test), strict=True):
        place = root / entry
        if place.is_file():
            text = place.read_text(errors="replace")
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            for line in lines:
                if "/" not in line or line.startswith("/") or ".." in line.split("/"):
                    raise CdlError(f"{place}: the line {line!r} is not of the form class/name.jpg")
            listed += [(split, line.split("/")[-2], root / line) for line in lines]
        elif place.is_dir():
            found = sorted(f for f in place.glob("*/*") if f.suffix.lower() in IMAGE_SUFFIXES)
            listed += [(split, f.parent.name, f) for f in found]
        else:
            raise CdlError(f"{place} is neither a folder of classes nor a split file")
    classes = sorted({name for _, name, _ in listed})
    label = {name: i for i, name in enumerate(classes)}
    items = [
        Item(split, label[name], str(file.relative_to(root)), partial(_open, file))
        for split, name, file in listed
    ]
    return Source(tuple(classes), items)


SOURCES: dict[str, Callable[..., Source]] = {
    "digits": digits,
    "cifar100": cifar100,
    "imagenet_r": imagenet_r,
    "parquet": parquet,
    "folder": folder,
}


def _open(file: Path) -> np.ndarray:
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise CdlError(f"{file} cannot be read: {error.strerror}") from error
    return decode(raw, str(file))
