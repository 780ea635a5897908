"""Which files a user's source consists of: asked by who reads them and by who watches them.

Nothing is opened here but split files. A folder is entered through links, as deep as classes lie
and no deeper; names that begin with a dot are nobody's images.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from cdl.runtime.artifacts import fingerprint, fingerprint_file
from cdl.runtime.errors import CdlError
from cdl.sources import SPLITS

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


def images_of(
    path: str,
    train: str = "train",
    test: str = "test",
    split: Mapping[str, Any] | None = None,
    domains: bool = False,
) -> Listing:
    """List a folder of images, see `cdl.sources.catalogue.folder`; `split` is not drawn yet.

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


def tables_of(path: str, train: str, test: str) -> dict[str, list[Path]]:
    """Return the Parquet files of each split; raise `CdlError` if a split has none."""
    found = {}
    for split, pattern in zip(SPLITS, (train, test), strict=True):
        found[split] = sorted(Path(path).glob(pattern))
        if not found[split]:
            raise CdlError(f"no {split} file matches {pattern!r} in the folder {path!r}")
        for file in found[split]:
            _validate(file)
    return found


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
                _validate(file)
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
        _validate_name(folder / name)
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
    _validate(place)
    try:
        lines = place.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CdlError(f"{place} cannot be read as text in UTF-8 ({error})") from error
    seen: dict[PurePosixPath, int] = {}
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line:
            continue
        inside = PurePosixPath(line)
        if inside.is_absolute() or ".." in inside.parts or len(inside.parts) < 2:
            raise CdlError(f"{place}: the line {line!r} is not of the form class/name.jpg")
        if seen.setdefault(inside, number) != number:
            raise CdlError(f"{place}: {line!r} stands in the lines {seen[inside]} and {number}")
        if (root / inside).exists():  # a missing one is named with all others by who reads it
            _validate(root / inside)
        yield inside.parts[-2], root / inside


def _validate(file: Path) -> None:
    """Raise `CdlError` if a file can never be read to its end, or its name is no text."""
    _validate_name(file)
    if not file.is_file():
        raise CdlError(
            f"{file} is no file (but a pipe, a device, a folder or a link that leads nowhere): "
            "remove it"
        )


def _validate_name(path: Path) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise CdlError(f"the name {str(path)!a} is not UTF-8: rename it") from error
