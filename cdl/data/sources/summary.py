"""What a source holds, found out without decoding an image or using the network. No torch."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cdl.data.sources import SOURCES, SPLITS, n_images
from cdl.data.sources.items import Source


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
    facts = SOURCES[name]
    if facts.summarise is not None:
        return facts.summarise(options, sha256_of)
    if facts.published:
        return _published(name, options)
    return summary_of(facts.read(**options))


def summary_of(source: Source) -> Summary:
    """Return what a source holds that has been read; its size is not known."""
    pairs = [(item.split, item.label) for item in source.items]
    return counted(source.classes, pairs, [], source.skipped)


def _published(name: str, options: dict[str, Any]) -> Summary:
    facts, images = SOURCES[name], n_images(name, options)
    assert facts.n_classes is not None and images is not None, "fixed, since it is published"
    files = [Path(options["root"], file.name) for file in facts.published]
    there = [file for file in files if file.is_file()]
    absent = tuple(str(file) for file in files if file not in there)
    return Summary(facts.n_classes, images, None, _size(there), absent)


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
    return Summary(len(classes), images, rows, _size(files), (), skipped or {})


def _size(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files if file.exists())
