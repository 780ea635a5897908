"""Images in folders of the user's own: which files they are, and how they are read.

Nothing is opened but split files until an image is read. A folder is entered through links, as
deep as classes lie and no deeper; names that begin with a dot are nobody's images.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from cdl.data.sources import SPLITS, SourceFacts
from cdl.data.sources.files import validate_file, validate_name
from cdl.data.sources.items import Item, Source
from cdl.data.sources.summary import Summary, counted
from cdl.runtime.artifacts import fingerprint, fingerprint_file
from cdl.runtime.errors import CdlError
from cdl.runtime.options import REQUIRED, flag, integer, number, text

if TYPE_CHECKING:
    import numpy as np

SUFFIXES = frozenset(".jpg .jpeg .jfif .png .webp .gif .bmp .tif .tiff".split())
FOREIGN = frozenset(  # of images that no decoder reads: never left out without a word
    ".apng .arw .avif .cr2 .cr3 .dcm .dng .eps .exr .hdr .heic .heif .ico .j2k .jp2 .jpe .jxl .nef "
    ".pbm .pcx .pgm .pnm .ppm .psd .raw .svg .tga .xcf".split()
)
HIDDEN = "hidden"  # counts names that begin with a dot among what is skipped


@dataclass(frozen=True)
class Image:
    """An image file: its split (empty until it is drawn), its class, where it lies."""

    split: str
    label: str
    path: Path

    @property
    def domain(self) -> str:
        """The folder above its class's."""
        return self.path.parts[-3]


@dataclass(frozen=True)
class Listing:
    """The files of a folder of images.

    Attributes:
        images: of both splits, the training images first.
        lists: split files.
        skipped: how many other files lie among the images, by suffix.
    """

    images: tuple[Image, ...]
    lists: tuple[Path, ...]
    skipped: Mapping[str, int]

    @property
    def files(self) -> list[Path]:
        """All files that decide what the source holds."""
        return [*self.lists, *(image.path for image in self.images)]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in label order."""
        return tuple(sorted({image.label for image in self.images}))


def read(
    path: str,
    train: str = "train",
    test: str = "test",
    split: Mapping[str, Any] | None = None,
    domains: bool = False,
) -> Source:
    """Read images in `path/SPLIT/CLASS/IMAGE`, or in `path/CLASS/IMAGE`.

    Args:
        path: the folder.
        train: sub-folder of the training images, or a text file in `path` with one image a
            line, written `class/name.jpg`.
        test: the same for the test images.
        split: instead of both, the share of `test` images and a `seed`: see `drawn`.
        domains: whether there are folders of domains, `DOMAIN/CLASS/IMAGE`, with the same classes.
    """
    listing = images_of(path, train, test, split, domains)
    if split is not None:
        listing = drawn(listing, split)
    label = {name: i for i, name in enumerate(listing.classes)}
    items = [
        Item(i.split, label[i.label], str(i.path.relative_to(path)), partial(_open, i.path))
        for i in listing.images
    ]
    return Source(listing.classes, items, listing.skipped)


def _open(file: Path) -> "np.ndarray":
    from cdl.data.sources.decoding import UnreadableImage, decode

    try:
        if file.exists() and not file.is_file():  # a pipe or a device might never end
            raise UnreadableImage(f"{file} is no file")
        raw = file.read_bytes()
    except OSError as error:
        raise UnreadableImage(f"{file} cannot be read: {error.strerror}") from error
    return decode(raw, str(file))


def images_of(
    path: str,
    train: str = "train",
    test: str = "test",
    split: Mapping[str, Any] | None = None,
    domains: bool = False,
) -> Listing:
    """List a folder of images, see `read`; `split` is not drawn yet.

    Raises:
        CdlError: files among which something would be lost: images that no decoder reads, in no
            class or in a folder below one; a class without images; pipes, devices and links that
            lead nowhere; names that are not UTF-8; lines of a split file given twice.
    """
    root, inside = Path(path), _domains if domains else _classes
    images: list[Image] = []
    lists: list[Path] = []
    skipped: Counter[str] = Counter()
    if split is not None:
        images += [Image("", *found) for found in inside(root, skipped)]
        return Listing(tuple(images), (), dict(sorted(skipped.items())))
    for name, entry in zip(SPLITS, (train, test), strict=True):
        place = root / entry
        if place.is_file():
            lists.append(place)
            images += [Image(name, *found) for found in _listed(root, place)]
        elif place.is_dir():
            images += [Image(name, *found) for found in inside(place, skipped)]
        else:
            raise CdlError(
                f"{place} is neither a folder of classes nor a split file; where {root} holds "
                "CLASS/IMAGE alone, write split: {test: 0.2, seed: 0}"
            )
    return Listing(tuple(images), tuple(lists), dict(sorted(skipped.items())))


def drawn(
    listing: Listing,
    split: Mapping[str, Any],
    sha256_of: Callable[[Path], str] = fingerprint_file,
) -> Listing:
    """Draw the test images of a listing without splits, by what is in each file.

    An image is a test image if the sha256 of (seed, sha256 of the file), read as a number in
    0..1, is less than `test`. So each class has the same share but for chance (a class of n
    images has `test * n` test images, give or take `sqrt(test * (1 - test) * n)`), equal files
    are on one side, and no image changes sides when others come or go.

    Args:
        listing: of `images_of` with `split`.
        split: `test`, the share, and `seed`.
        sha256_of: of a file.

    Raises:
        CdlError: a class has no image on one of the sides, or a file cannot be read.
    """
    images = []
    for image in listing.images:
        try:
            number = fingerprint([split["seed"], sha256_of(image.path)])
        except OSError as error:
            raise CdlError(f"{image.path} cannot be read: {error.strerror}") from error
        side = SPLITS[int(number[:13], 16) / 16**13 < split["test"]]
        images.append(replace(image, split=side))
    for name in SPLITS:
        without = sorted(set(listing.classes) - {i.label for i in images if i.split == name})
        if without:
            raise CdlError(
                f"split: with test {split['test']} and seed {split['seed']} the {name} split has "
                f"no image of class {without[0]!r}; take another seed or share, or more images"
            )
    return replace(listing, images=tuple(sorted(images, key=lambda i: SPLITS.index(i.split))))


def _domains(place: Path, skipped: Counter[str]) -> Iterator[tuple[str, Path]]:
    """Yield class and path of each image in `place/DOMAIN/CLASS/`; count what is skipped."""
    for folder in _visible(place, skipped):
        if folder.is_dir():
            yield from _classes(folder, skipped)
        elif _is_image(folder, skipped):
            raise CdlError(f"{folder} is in no domain: put it into DOMAIN/CLASS/")


def _classes(place: Path, skipped: Counter[str]) -> Iterator[tuple[str, Path]]:
    """Yield class and path of each image in `place/CLASS/`; count what is skipped."""
    found: list[tuple[str, Path]] = []
    for folder in _visible(place, skipped):
        if not folder.is_dir():
            if _is_image(folder, skipped):
                raise CdlError(f"{folder} is in no class: put it into a folder named after one")
            continue
        before = len(found)
        for file in _visible(folder, skipped):
            if file.is_dir():
                raise CdlError(
                    f"{file} is a folder inside a class, whose images would be left out: move them "
                    "up, or let its name begin with a dot"
                )
            if _is_image(file, skipped):
                validate_file(file)
                found.append((folder.name, file))
        if len(found) == before:
            raise CdlError(f"the class {folder} holds no image: remove it, or put some into it")
    yield from sorted(found, key=lambda pair: pair[1])


def _visible(folder: Path, skipped: Counter[str]) -> Iterator[Path]:
    """Yield what a folder holds, but for hidden names, which are counted."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise CdlError(f"{folder} cannot be read: {error.strerror}") from error
    for name in names:
        validate_name(folder / name)
        if name.startswith("."):
            skipped[HIDDEN] += 1
        else:
            yield folder / name


def _is_image(file: Path, skipped: Counter[str]) -> bool:
    """Whether a file's suffix is that of an image; others are counted."""
    suffix = file.suffix.lower()
    if suffix in FOREIGN:
        known = " ".join(sorted(SUFFIXES))
        raise CdlError(f"{file}: images {suffix} cannot be read; convert or remove them ({known})")
    if suffix not in SUFFIXES:
        skipped[suffix or "without suffix"] += 1
        return False
    return True


def _listed(root: Path, place: Path) -> Iterator[tuple[str, Path]]:
    """Yield class and path of each line of a split file."""
    validate_file(place)
    try:
        lines = place.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CdlError(f"{place} cannot be read as text in UTF-8 ({error})") from error
    seen: dict[PurePosixPath, int] = {}
    for i, line in enumerate(map(str.strip, lines), 1):
        if not line:
            continue
        inside = PurePosixPath(line)
        if inside.is_absolute() or ".." in inside.parts or len(inside.parts) < 2:
            raise CdlError(f"{place}: the line {line!r} is not of the form class/name.jpg")
        if seen.setdefault(inside, i) != i:
            raise CdlError(f"{place}: {line!r} stands in the lines {seen[inside]} and {i}")
        if (root / inside).exists():  # a missing one is named with all others by who reads it
            validate_file(root / inside)
        yield inside.parts[-2], root / inside


def _files(**options: Any) -> list[Path]:
    return images_of(**options).files


def _summarise(options: dict[str, Any], sha256_of: Callable[[Path], str]) -> Summary:
    listing = images_of(**options)
    if options["split"] is not None:
        listing = drawn(listing, options["split"], sha256_of)
    label = {name: i for i, name in enumerate(listing.classes)}
    pairs = [(image.split, label[image.label]) for image in listing.images]
    return counted(listing.classes, pairs, listing.files, listing.skipped)


FOLDER = SourceFacts(
    read=read,
    description="Folder split/class/image.jpg, or one folder class/image.jpg with split files or a "
    "split.",
    options={
        "path": text(REQUIRED, "The folder."),
        "train": text("train", "Sub-folder or split file of the training images."),
        "test": text("test", "Sub-folder or split file of the test images."),
        "domains": flag(
            False,
            "Whether domains lie above the classes, DOMAIN/CLASS/*.jpg; they may be the tasks.",
            omit_default=True,
        ),
        "split": {
            "type": ["object", "null"],
            "additionalProperties": False,
            "required": ["test"],
            "default": None,
            "description": "Where there is no split: {test: 0.2, seed: 0} draws one by the "
            "contents of each file.",
            "properties": {
                "test": number(
                    REQUIRED, "Share of the test images.", exclusiveMinimum=0, exclusiveMaximum=1
                ),
                "seed": integer(0, "Of the draw, independent of the seeds of the runs.", minimum=0),
            },
        },
    },
    files=_files,
    listing=images_of,
    summarise=_summarise,
)
