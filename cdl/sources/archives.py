"""Datasets that are published as archives: fetched whole, checked, and read in place.

`fetch` brings the files into the source's `root` and is the only function here that may use the
network. Nothing is ever unpacked or unpickled: a reader returns the bytes of an archive's regular
files, so no path can lead out of a folder and no link is followed.
"""

import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from cdl.runtime.artifacts import write_json
from cdl.runtime.errors import CdlError
from cdl.runtime.fetching import Published, obtain
from cdl.sources import SPLITS, hub
from cdl.sources.decoding import decode
from cdl.sources.items import Item, Source, class_names

_SPLIT = (  # of CODA-Prompt (Smith et al., CVPR 2023), the commit that released ImageNet-R
    "https://raw.githubusercontent.com/GT-RIPL/CODA-Prompt/"
    "605ac87af91f6aae0f31695f08c8876529a22efe/dataloaders/splits/"
)
PUBLISHED: dict[str, tuple[Published, ...]] = {
    "cifar10": (
        Published(
            "cifar-10-binary.tar.gz",
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            "md5:c32a1d4ab5d03f1284b67883e8d87530",
        ),
    ),
    "cifar100": (
        Published(
            "cifar-100-binary.tar.gz",
            "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
            "md5:03b5dce01913d631647c71ecec9e9cb8",
        ),
    ),
    "imagenet_r": (
        Published(
            "imagenet-r.tar",
            "https://people.eecs.berkeley.edu/~hendrycks/imagenet-r.tar",
            "md5:a61312130a589d0ca1a8fca1f2bd3337",
        ),
        Published(
            "imagenet-r_train.yaml",
            f"{_SPLIT}imagenet-r_train.yaml",
            "md5:b90d9c763369c87dbd9becb80abd83b3",
        ),
        Published(
            "imagenet-r_test.yaml",
            f"{_SPLIT}imagenet-r_test.yaml",
            "md5:3ea5a3aa2e96578874254d4ee87321b3",
        ),
    ),
}
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C reads 30,000 lines in 1 s
_AGAIN = "delete it and run again with --forcerun fetch_dataset"
_BROKEN = (OSError, EOFError, tarfile.TarError, zlib.error)


def fetch(record: str | Path, name: str, root: str, **options: Any) -> None:
    """Bring a source's files into its `root` and write their checksums to `record` (JSON).

    Args:
        record: says that all files were there and right.
        name: a key of `PUBLISHED`, or `hub`.
        root: folder of the files; right ones that lie there are taken.
        options: `mirror` and `offline` of `cdl.runtime.fetching.obtain`; of `hub` all its own.

    Raises:
        CdlError: a file cannot be had, or is not the published one, or instead of the archive
            there is a tree that another tool has rearranged.
    """
    if name == "hub":
        return hub.fetch(record, root, **options)
    files = PUBLISHED[name]
    _validate_layout(Path(root), files[0].name)
    obtain(files, root, **options)
    write_json(record, {file.name: file.checksum for file in files})


def check(name: str, root: str, **options: Any) -> None:
    """Raise `CdlError` if a file that lies in `root` is not as published; arguments of `fetch`."""
    if name == "hub":
        return hub.check(root, **options)
    there = [file for file in PUBLISHED[name] if Path(root, file.name).is_file()]
    obtain(there, root, offline=True)


def cifar10(root: str = "data/cifar10") -> Source:
    """CIFAR-10 (Krizhevsky, 2009): 50,000 and 10,000 images of 32x32 pixels, 10 classes.

    The binary edition: per image a label and 3x32x32 bytes, training images in five files.
    """
    folder = "cifar-10-batches-bin"
    train = [f"{folder}/data_batch_{i}.bin" for i in range(1, 6)]
    files = {"train": train, "test": [f"{folder}/test_batch.bin"]}
    return _cifar(root, "cifar10", files, f"{folder}/batches.meta.txt", labels=1)


def cifar100(root: str = "data/cifar100") -> Source:
    """CIFAR-100 (Krizhevsky, 2009): 50,000 and 10,000 images of 32x32 pixels, 100 classes.

    The binary edition: per image a coarse label, a fine label and 3x32x32 bytes; fine labels are
    used.
    """
    files = {split: [f"cifar-100-binary/{split}.bin"] for split in SPLITS}
    return _cifar(root, "cifar100", files, "cifar-100-binary/fine_label_names.txt", labels=2)


def _cifar(
    root: str, name: str, files: Mapping[str, Sequence[str]], names: str, labels: int
) -> Source:
    """Read a binary edition: `labels` bytes, of which the last counts, then the pixels' planes."""
    path = Path(root, PUBLISHED[name][0].name)
    read = _reader(path)
    size = labels + 3 * 32 * 32

    def rows() -> Iterator[Item]:
        for split in SPLITS:
            number = count()
            for file in files[split]:
                raw = np.frombuffer(read(file), np.uint8)
                if raw.size % size:
                    raise CdlError(f"{path}: {file} has {raw.size} bytes, no multiple of {size:,}")
                for row in raw.reshape(-1, size):
                    pixels = row[labels:].reshape(3, 32, 32).transpose(1, 2, 0)
                    image = partial(np.asarray, pixels)
                    yield Item(split, int(row[labels - 1]), f"{split}[{next(number)}]", image)

    return Source(tuple(read(names).decode().split()), rows())


def imagenet_r(root: str = "data/imagenet-r") -> Source:
    """ImageNet-R (Hendrycks et al., ICCV 2021) in the split `coda-v1` of CODA-Prompt.

    24,000 training and 6,000 test images of 200 classes. The two lists give each image's label;
    labels do not follow the sorted names of the folders. A class is named by its WordNet id.
    """
    path = Path(root, PUBLISHED["imagenet_r"][0].name)
    _validate_layout(path.parent, path.name)
    read = _reader(path)

    def image(inside: str) -> np.ndarray:
        return decode(read(inside), f"{path}: {inside}")

    folders: dict[int, str] = {}
    items = []
    for split in SPLITS:
        lines = path.with_name(f"imagenet-r_{split}.yaml")
        for name, label in _listed(lines):
            folder, file = name.split("/")[-2:]
            if folders.setdefault(label, folder) != folder:
                raise CdlError(
                    f"{lines}: {name} has label {label}, which is that of {folders[label]!r}"
                )
            inside = f"imagenet-r/{folder}/{file}"
            items.append(Item(split, label, f"{folder}/{file}", partial(image, inside)))
    return Source(class_names(folders, root), items)


def _listed(path: Path) -> list[tuple[str, int]]:
    """Return names and labels of a split file: `data`, a list of paths, and `targets`."""
    try:
        lists: Mapping[str, list[Any]] = yaml.load(path.read_text(), Loader=_LOADER)
        pairs = list(zip(lists["data"], lists["targets"], strict=True))
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise CdlError(f"{path} cannot be read as a split file ({error}); {_AGAIN}") from error
    for name, label in pairs:
        if not isinstance(name, str) or name.count("/") < 1 or type(label) is not int:
            raise CdlError(f"{path}: {name!r} with label {label!r} is not FOLDER/NAME and a number")
    return pairs


def _reader(path: Path) -> Callable[[str], bytes]:
    """Return a function from the name of a regular file in a tar archive to its bytes."""
    try:
        tar = tarfile.open(path)  # noqa: SIM115 (open as long as its reader)
        members = {member.name: member for member in tar if member.isfile()}
    except _BROKEN as error:
        raise CdlError(f"{path} cannot be read ({error}); {_AGAIN}") from error

    def read(name: str) -> bytes:
        if name not in members:
            raise CdlError(f"{path} holds no file {name!r}; {_AGAIN}")
        try:
            file = tar.extractfile(members[name])
            assert file is not None  # of regular files alone
            return file.read()
        except _BROKEN as error:
            raise CdlError(f"{name} in {path} cannot be read ({error}); {_AGAIN}") from error

    return read


def _validate_layout(root: Path, archive: str) -> None:
    """Raise `CdlError` if there are train and test folders where the archive should be."""
    if (root / archive).exists():
        return
    for folder in (root, root / archive.split(".")[0]):
        if all((folder / split).is_dir() for split in SPLITS):
            raise CdlError(
                f"{folder} was rearranged by another tool (it has the folders train and test) and "
                f"says nothing about the split used here; put {archive} as published into {root}, "
                "or name another root"
            )
