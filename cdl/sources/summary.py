"""What a source holds, found out without decoding an image or using the network. No torch."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cdl.runtime.errors import CdlError
from cdl.sources import N_CLASSES, N_IMAGES, SPLITS
from cdl.sources.folders import drawn, images_of, tables_of


@dataclass(frozen=True)
class Summary:
    """Classes, counts and size of a source.

    Attributes:
        n_classes: number of classes.
        images: of each split.
        classes: training and test images of each class, by its name in label order; None of a
            published source, whose archive is not opened.
        nbytes: of its files on this disk.
        absent: files that are not there yet and will be fetched.
        skipped: files among the images that are none, by suffix.
    """

    n_classes: int
    images: Mapping[str, int]
    classes: Mapping[str, tuple[int, int]] | None
    nbytes: int
    absent: tuple[str, ...] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)


def summarise(source: Mapping[str, Any], sha256_of: Callable[[Path], str]) -> Summary:
    """Return what a source holds.

    Args:
        source: `name` of a source and its arguments, all of them.
        sha256_of: of a file, where images are drawn by their contents.

    Raises:
        CdlError: it cannot be read as it is described.
    """
    options = dict(source)
    name = options.pop("name")
    kind = _KINDS.get(name, _published if "root" in options else _any)
    return kind(name, options, sha256_of)


def _folder(name: str, options: dict[str, Any], sha256_of: Callable[[Path], str]) -> Summary:
    listing = images_of(**options)
    if options["split"] is not None:
        listing = drawn(listing, options["split"], sha256_of)
    label = {name: i for i, name in enumerate(listing.classes)}
    pairs = [(image.split, label[image.label]) for image in listing.images]
    return _counted(listing.classes, pairs, listing.files, listing.skipped)


def _parquet(name: str, options: dict[str, Any], sha256_of: Callable[[Path], str]) -> Summary:
    from cdl.sources.tables import Columns, read_classes, read_labels

    files = tables_of(options["path"], options["train"], options["test"])
    columns = Columns(*(options[key] for key in Columns._fields))
    classes = read_classes(options["path"], files, columns)
    pairs = [
        (split, label)
        for split, parts in files.items()
        for part in parts
        for label in read_labels(part, columns)
    ]
    return _counted(classes, pairs, [part for parts in files.values() for part in parts], {})


def _hub(name: str, options: dict[str, Any], sha256_of: Callable[[Path], str]) -> Summary:
    from cdl.sources.hub import folder_of

    folder = folder_of(options["root"], options["id"], options["revision"])
    if not folder.is_dir():
        raise CdlError(
            f"{folder} is not there yet, and only its files say what classes it has: fetch it by "
            "`cdl run CONFIG --until fetch_dataset`"
        )
    return _any(name, options, sha256_of)


def _any(name: str, options: dict[str, Any], sha256_of: Callable[[Path], str]) -> Summary:
    from cdl.sources.catalogue import SOURCES

    source = SOURCES[name](**options)
    pairs = [(item.split, item.label) for item in source.items]
    return _counted(source.classes, pairs, [], source.skipped)


def _published(name: str, options: dict[str, Any], sha256_of: Callable[[Path], str]) -> Summary:
    from cdl.sources.archives import PUBLISHED

    files = [Path(options["root"], file.name) for file in PUBLISHED[name]]
    there = [file for file in files if file.is_file()]
    absent = tuple(str(file) for file in files if file not in there)
    return Summary(N_CLASSES[name], N_IMAGES[name], None, _size(there), absent)


_KINDS = {"folder": _folder, "parquet": _parquet, "hub": _hub}


def _counted(
    classes: tuple[str, ...],
    pairs: Iterable[tuple[str, int]],
    files: Iterable[Path],
    skipped: Mapping[str, int],
) -> Summary:
    counts = Counter(pairs)
    rows = {name: (counts["train", i], counts["test", i]) for i, name in enumerate(classes)}
    images = {s: sum(n for (split, _), n in counts.items() if split == s) for s in SPLITS}
    return Summary(len(classes), images, rows, _size(files), (), skipped)


def _size(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files if file.exists())
