"""Summarise a source without decoding images. Uses no network and no torch."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cdl.data.sources import SOURCES, SPLITS, n_classes, n_images
from cdl.data.sources.items import Source


@dataclass(frozen=True)
class Summary:
    """Classes, counts and size of a source.

    Attributes:
        n_classes: number of classes.
        images: number of images of each split.
        classes: number of training and test images of each class, by name in label order; None for
            a published source, whose archive is not opened.
        nbytes: size of its local files in bytes.
        absent: files that are missing and will be fetched.
        skipped: number of files among the images that are not images, by suffix.
        items: what its items are called, see `cdl.data.modalities`.
        in_tasks: number of classes that are in a task; None for all.
        disputed: names of items with copies in another class; None if they were not opened.
        problems: why it cannot be used.
    """

    n_classes: int
    images: Mapping[str, int]
    classes: Mapping[str, tuple[int, int]] | None
    nbytes: int
    absent: tuple[str, ...] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)
    items: str = "images"
    in_tasks: int | None = None
    disputed: tuple[str, ...] | None = None
    problems: tuple[str, ...] = ()


def summarise(source: Mapping[str, Any], sha256_of: Callable[[Path], str]) -> Summary:
    """Return the summary of a source.

    Args:
        source: `name` of a source and all its arguments.
        sha256_of: function from a file to its sha256, for splits that are drawn by content.

    Raises:
        CdlError: the source cannot be read.
    """
    options = dict(source)
    name = options.pop("name")
    facts = SOURCES[name]
    if facts.summarise is not None:
        return facts.summarise(options, sha256_of)
    if facts.published:
        return _published(name, options)
    return summary_of(facts.read(**options))


def summary_of(source: Source) -> Summary:
    """Return the summary of a source that was read; its size in bytes is given as 0."""
    pairs = [(item.split, item.label) for item in source.items]
    return counted(source.classes, pairs, [], source.skipped)


def _published(name: str, options: dict[str, Any]) -> Summary:
    facts, images, classes = SOURCES[name], n_images(name, options), n_classes(name, options)
    assert classes is not None and images is not None, "published sources have fixed counts"
    files = [Path(options["root"], file.name) for file in facts.published]
    there = [file for file in files if file.is_file()]
    absent = tuple(str(file) for file in files if file not in there)
    return Summary(classes, images, None, _nbytes_of(there), absent)


def counted(
    classes: tuple[str, ...],
    pairs: Iterable[tuple[str, int]],
    files: Iterable[Path],
    skipped: Mapping[str, int] | None = None,
) -> Summary:
    """Return a summary from the split and the label of every image."""
    counts = Counter(pairs)
    rows = {name: (counts["train", i], counts["test", i]) for i, name in enumerate(classes)}
    images = {s: sum(n for (split, _), n in counts.items() if split == s) for s in SPLITS}
    return Summary(len(classes), images, rows, _nbytes_of(files), (), skipped or {})


def _nbytes_of(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files if file.exists())
