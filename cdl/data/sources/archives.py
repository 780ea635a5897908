"""Datasets published as archives: fetched, verified, and read without unpacking.

`fetch` downloads the files into the source's `root` and is the only function here that uses the
network. Archives are never unpacked or unpickled: a reader returns the bytes of their regular
files, so no path can point outside a folder and no link is followed.
"""

import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from cdl.data.sources import SOURCES, SPLITS
from cdl.data.sources.items import Item, Source
from cdl.runtime.artifacts import write_json
from cdl.runtime.errors import CdlError
from cdl.runtime.fetching import obtain

AGAIN = "delete it and run again with --forcerun fetch_dataset"
_BROKEN = (OSError, EOFError, tarfile.TarError, zlib.error)


def fetch(record: str | Path, name: str, root: str, **options: Any) -> None:
    """Fetch a source's files into `root`; write their checksums to `record` (JSON).

    Args:
        record: file to write when all files are present and verified.
        name: name of a source with published files.
        root: folder of the files; valid files that are already in it are kept.
        options: `mirror` and `offline` of `cdl.runtime.fetching.obtain`, and the other options of
            the source, which only `hub` uses.

    Raises:
        CdlError: a file cannot be fetched or has the wrong checksum; or `root` contains a tree
            that another tool rearranged, instead of the archive.
    """
    facts = SOURCES[name]
    if facts.fetch is not None:
        return facts.fetch(record, root, **options)
    files = facts.published
    validate_layout(Path(root), files[0].name)
    obtain(files, root, **{k: v for k, v in options.items() if k in ("mirror", "offline")})
    write_json(record, {file.name: file.checksum for file in files})


def check(name: str, root: str, **options: Any) -> None:
    """Raise `CdlError` if a file in `root` differs from the published one."""
    facts = SOURCES[name]
    if facts.check is not None:
        return facts.check(root, **options)
    there = [file for file in facts.published if Path(root, file.name).is_file()]
    obtain(there, root, offline=True)


def read_binary_cifar(
    path: Path, files: Mapping[str, Sequence[str]], names: str, labels: int
) -> Source:
    """Read a binary edition of CIFAR: per image one-byte labels, then pixel planes.

    Args:
        path: path of the archive.
        files: names of each split's files in it.
        names: name of the file with the class names in it.
        labels: number of label bytes per image; the last one is used.
    """
    read = open_archive(path)
    size = labels + 3 * 32 * 32

    def rows() -> Iterator[Item]:
        for split in SPLITS:
            number = count()
            for file in files[split]:
                raw = np.frombuffer(read(file), np.uint8)
                if raw.size % size:
                    raise CdlError(
                        f"{path}: {file} has {raw.size} bytes; expected a multiple of {size:,}"
                    )
                for row in raw.reshape(-1, size):
                    pixels = row[labels:].reshape(3, 32, 32).transpose(1, 2, 0)
                    image = partial(np.asarray, pixels)
                    yield Item(split, int(row[labels - 1]), f"{split}[{next(number)}]", image)

    return Source(tuple(read(names).decode().split()), rows())


def open_archive(path: Path) -> Callable[[str], bytes]:
    """Return a function from the name of a regular file in a tar archive to its bytes."""
    try:
        tar = tarfile.open(path)  # noqa: SIM115 (the reader needs it open)
        members = {member.name: member for member in tar if member.isfile()}
    except _BROKEN as error:
        raise CdlError(f"{path} cannot be read ({error}); {AGAIN}") from error

    def read(name: str) -> bytes:
        if name not in members:
            raise CdlError(f"{path} contains no file {name!r}; {AGAIN}")
        try:
            file = tar.extractfile(members[name])
            assert file is not None  # since `members` has regular files only
            return file.read()
        except _BROKEN as error:
            raise CdlError(f"{name} in {path} cannot be read ({error}); {AGAIN}") from error

    return read


def validate_layout(root: Path, archive: str) -> None:
    """Raise `CdlError` if there are train and test folders instead of the archive."""
    if (root / archive).exists():
        return
    for folder in (root, root / archive.split(".")[0]):
        if all((folder / split).is_dir() for split in SPLITS):
            raise CdlError(
                f"{folder} was rearranged by another tool (it has the folders train and test), "
                f"and its split may differ; put {archive} as published into {root}, or set another "
                "root"
            )
