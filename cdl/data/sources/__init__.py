"""Where images come from: published archives, folders and tables, as named items.

A source is one file: how it is read, and all that planning knows of it. Planning imports these
files, so what takes long to import (numpy, Pillow, pyarrow) is imported in functions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdl.runtime.registry import Registry

if TYPE_CHECKING:
    from cdl.data.sources.folder import Listing
    from cdl.data.sources.items import Source
    from cdl.data.sources.summary import Summary
    from cdl.runtime.fetching import Published

SPLITS = ("train", "test")


@dataclass(frozen=True, kw_only=True)
class SourceFacts:
    """A source.

    read: from its options, as keyword arguments, to class names and items of both splits.
    description: one sentence.
    options: arguments of `read` by name, as JSON schema with the defaults of its signature;
        `cdl.runtime.options` writes them in short.
    n_classes: where it is fixed.
    n_images: of each split where they are fixed, or a function from the options to them.
    licence: of the images, as far as their publishers say.
    published: files that are fetched into the option `root`.
    fetch: in the place of `published`, where the options decide which files; as
        `cdl.data.sources.archives.fetch` without a name.
    check: of what `fetch` has brought; as `cdl.data.sources.archives.check` without a name.
    files: of a user's own source, from its options to all files that decide what it holds.
    listing: the same with the class of each file, where a file has one.
    summarise: in the place of reading it; as `cdl.data.sources.summary.summarise`.
    """

    read: "Callable[..., Source]"
    description: str
    options: Mapping[str, Any]
    n_classes: int | None = None
    n_images: Mapping[str, int] | Callable[[Mapping[str, Any]], Mapping[str, int]] | None = None
    licence: str | None = None
    published: "tuple[Published, ...]" = ()
    fetch: Callable[..., None] | None = None
    check: Callable[..., None] | None = None
    files: Callable[..., list[Path]] | None = None
    listing: "Callable[..., Listing] | None" = None
    summarise: "Callable[[dict[str, Any], Callable[[Path], str]], Summary] | None" = None


SOURCES = Registry(
    SourceFacts,
    {
        "digits": "cdl.data.sources.digits:DIGITS",
        "cifar20": "cdl.data.sources.cifar20:CIFAR20",
        "cifar10": "cdl.data.sources.cifar10:CIFAR10",
        "cifar100": "cdl.data.sources.cifar100:CIFAR100",
        "imagenet_r": "cdl.data.sources.imagenet_r:IMAGENET_R",
        "parquet": "cdl.data.sources.parquet:PARQUET",
        "hub": "cdl.data.sources.hub:HUB",
        "folder": "cdl.data.sources.folder:FOLDER",
    },
)


def licence_of(source: str) -> str | None:
    """Return the licence of a source's images, None if it is not known."""
    return SOURCES[source].licence if source in SOURCES else None


def n_images(source: str, options: Mapping[str, Any]) -> Mapping[str, int] | None:
    """Return the images of each split of a source, None if only its files say."""
    fixed = SOURCES[source].n_images
    return fixed(options) if callable(fixed) else fixed


def images_per_class(source: str, options: Mapping[str, Any]) -> float | None:
    """Return the mean number of training images of a class, None if only its files say."""
    n, classes = n_training_images(source, options, None), SOURCES[source].n_classes
    return n / classes if n and classes else None


def n_training_images(source: str, options: Mapping[str, Any], per_class: int | None) -> int | None:
    """Return how many training images a source has, None if only its files say.

    Args:
        source: its name.
        options: its block of the configuration.
        per_class: most of each class; None for all.
    """
    images, classes = n_images(source, options), SOURCES[source].n_classes
    if images is None or classes is None:
        return None
    return images["train"] if per_class is None else min(images["train"], per_class * classes)
