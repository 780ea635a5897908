"""Sources of images and texts: published files, folders and tables, read as named items.

Each source is one file with its reader and its facts for planning. Planning imports these files,
so packages that take long to import (numpy, Pillow, pyarrow) are imported inside functions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdl.data.modalities import DEFAULT
from cdl.runtime.registry import Registry

if TYPE_CHECKING:
    from cdl.data.sources.folder import Listing
    from cdl.data.sources.items import Source
    from cdl.data.sources.summary import Summary
    from cdl.runtime.fetching import Published

SPLITS = ("train", "test")
CLASSES = {  # an option of sources whose reader calls `cdl.data.sources.items.only`
    "type": ["array", "null"],
    "minItems": 1,
    "uniqueItems": True,
    "items": {"type": ["integer", "string"], "minimum": 0, "minLength": 1},
    "default": None,
    "description": "Labels or names of the classes to keep, the others do not exist; null: all.",
}


@dataclass(frozen=True, kw_only=True)
class SourceFacts:
    """Reader and facts of a source.

    read: function of the options, as keyword arguments, that returns class names and items of both
        splits.
    description: one sentence.
    options: JSON schema of the arguments of `read` by name, with the defaults of its signature;
        `cdl.runtime.options` has a short notation.
    n_classes: number of classes without the option `classes`; None if it is not fixed.
    n_images: number of images of each split without the option `classes`, the same for each class,
        or a function from the options to it; None if only the files determine it.
    modality: of its items, see `cdl.data.modalities`; or a function from the options to it.
    licence: of the images, as published; None if unknown.
    published: files that are fetched into the option `root`.
    fetch: replaces `published` if the files depend on the options; same arguments as
        `cdl.data.sources.archives.fetch` without `name`.
    check: verifies the files of `fetch`; same arguments as `cdl.data.sources.archives.check`
        without `name`.
    files: for a user's own source, function from its options to all files that it reads.
    listing: like `files`, with the class of each file where a file has one.
    summarise: summary without reading the source, see `cdl.data.sources.summary.summarise`.
    """

    read: "Callable[..., Source]"
    description: str
    options: Mapping[str, Any]
    n_classes: int | None = None
    n_images: Mapping[str, int] | Callable[[Mapping[str, Any]], Mapping[str, int]] | None = None
    modality: str | Callable[[Mapping[str, Any]], str] = DEFAULT
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
        "clinc150": "cdl.data.sources.clinc150:CLINC150",
        "banking77": "cdl.data.sources.banking77:BANKING77",
        "csv": "cdl.data.sources.csv:CSV",
    },
)


def licence_of(source: str) -> str | None:
    """Return the licence of a source's images, or None if it is unknown."""
    return SOURCES[source].licence if source in SOURCES else None


def modality_of(source: Mapping[str, Any]) -> str:
    """Return the modality of a dataset's block `source`; `DEFAULT` if the block is invalid."""
    name, options = next(iter(source.items()), ("", None))
    kind = SOURCES[name].modality if name in SOURCES else DEFAULT
    if isinstance(kind, str):
        return kind
    return kind(options) if isinstance(options, Mapping) else DEFAULT


def n_classes(source: str, options: Mapping[str, Any]) -> int | None:
    """Return the number of classes, or None if it is not fixed."""
    kept = options.get("classes")
    return SOURCES[source].n_classes if kept is None else len(kept)


def n_images(source: str, options: Mapping[str, Any]) -> Mapping[str, int] | None:
    """Return the number of images of each split, or None if it is not fixed."""
    fixed, kept, whole = SOURCES[source].n_images, options.get("classes"), SOURCES[source].n_classes
    images = fixed(options) if callable(fixed) else fixed
    if kept is None or images is None or whole is None:
        return images
    return {split: n * len(kept) // whole for split, n in images.items()}


def images_per_class(source: str, options: Mapping[str, Any]) -> float | None:
    """Return the mean number of training images per class, or None if it is not fixed."""
    images, classes = n_images(source, options), n_classes(source, options)
    return images["train"] / classes if images and classes else None
