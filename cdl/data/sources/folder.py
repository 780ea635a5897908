"""Images in a user's folder: list the files, draw a split, read the images.

Listing opens no files other than split files. Links to folders are followed, down to the level of
classes; names that begin with a dot are ignored.
"""

import contextlib
import os
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from cdl.data.sources import SPLITS, SourceFacts
from cdl.data.sources.files import existing_folder, validate_file, validate_name
from cdl.data.sources.items import Item, Source, first_share
from cdl.data.sources.summary import Summary, counted
from cdl.device.names import check_class_name
from cdl.runtime.artifacts import fingerprint, fingerprint_file
from cdl.runtime.errors import CdlError, Unreadable
from cdl.runtime.options import REQUIRED, flag, integer, number, text

if TYPE_CHECKING:
    import numpy as np

SUFFIXES = frozenset(".jpg .jpeg .jfif .png .webp .gif .bmp .tif .tiff".split())
FOREIGN = frozenset(  # image formats without a decoder, which are refused instead of skipped
    ".apng .arw .avif .cr2 .cr3 .dcm .dng .eps .exr .hdr .heic .heif .ico .j2k .jp2 .jpe .jxl .nef "
    ".pbm .pcx .pgm .pnm .ppm .psd .raw .svg .tga .xcf".split()
)
HIDDEN = "hidden"  # key of the number of skipped names that begin with a dot


@dataclass(frozen=True)
class Image:
    """An image file: its split (empty until it is drawn), its class, its path."""

    split: str
    label: str
    path: Path

    @property
    def domain(self) -> str:
        """Name of the folder above the class's folder."""
        return self.path.parts[-3]


@dataclass(frozen=True)
class Listing:
    """The files of a folder of images.

    Attributes:
        images: of both splits, training images first.
        lists: split files.
        skipped: number of other files among the images, by suffix.
        problems: why the folder cannot be used: images would be lost (formats without a decoder,
            images outside a class or in a folder below one), a class has no images, there are
            pipes, devices, dead links or invalid class names.
    """

    images: tuple[Image, ...]
    lists: tuple[Path, ...]
    skipped: Mapping[str, int]
    problems: tuple[str, ...] = ()

    @property
    def files(self) -> list[Path]:
        """All files on which the contents of the source depend."""
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
        train: sub-folder of the training images, or a text file in `path` with one image per
            line, written `class/name.jpg`.
        test: the same for the test images.
        split: replaces `train` and `test` by a draw with the share of `test` images, a `seed` and
            `stratified`, see `drawn`.
        domains: whether there are folders of domains, `DOMAIN/CLASS/IMAGE`, with the same classes.
    """
    listing = images_of(path, train, test, split, domains)
    if split is not None:
        listing = drawn(listing, split)
    return Source(listing.classes, items_of(listing, path), listing.skipped)


def items_of(listing: Listing, path: str) -> list[Item]:
    """Return the images of a listing of the folder `path` as items."""
    label = {name: i for i, name in enumerate(listing.classes)}
    return [
        Item(i.split, label[i.label], str(i.path.relative_to(path)), partial(_open, i.path))
        for i in listing.images
    ]


def _open(file: Path) -> "np.ndarray":
    from cdl.device.decoding import decode

    try:
        if file.exists() and not file.is_file():  # reading a pipe or a device may not end
            raise Unreadable(f"{file} is not a regular file")
        raw = file.read_bytes()
    except OSError as error:
        raise Unreadable(f"{file} cannot be read: {error.strerror}") from error
    return decode(raw, str(file))


def images_of(
    path: str,
    train: str = "train",
    test: str = "test",
    split: Mapping[str, Any] | None = None,
    domains: bool = False,
) -> Listing:
    """List a folder of images, see `read`; a `split` is not drawn yet.

    Raises:
        CdlError: see `survey`; or the listing has problems.
    """
    listing = survey(path, train, test, split, domains)
    if problems := listing.problems:
        more = f" (and {len(problems) - 1} more; `cdl data` lists them)" if problems[1:] else ""
        raise CdlError(f"{problems[0]}{more}")
    return listing


def survey(
    path: str,
    train: str = "train",
    test: str = "test",
    split: Mapping[str, Any] | None = None,
    domains: bool = False,
) -> Listing:
    """List a folder of images as `images_of`, with everything that is wrong.

    Raises:
        CdlError: a folder or a split file is missing or cannot be read, or a name is not UTF-8.
    """
    root, inside = existing_folder(path), _in_domains if domains else _in_classes
    images: list[Image] = []
    lists: list[Path] = []
    walk = _Walk()
    if split is not None:
        images += [Image("", *found) for found in inside(root, walk)]
        return Listing(tuple(images), (), dict(sorted(walk.skipped.items())), walk.all_problems())
    for name, entry in zip(SPLITS, (train, test), strict=True):
        place = root / entry
        if place.is_file():
            lists.append(place)
            images += [Image(name, *found) for found in _in_split_file(root, place)]
        elif place.is_dir():
            images += [Image(name, *found) for found in inside(place, walk)]
        else:
            raise CdlError(
                f"{place} is neither a folder of classes nor a split file; if {root} contains only "
                "CLASS/IMAGE, set split: {test: 0.2, seed: 0}"
            )
    skipped = dict(sorted(walk.skipped.items()))
    return Listing(tuple(images), tuple(lists), skipped, walk.all_problems())


def drawn(
    listing: Listing,
    split: Mapping[str, Any],
    sha256_of: Callable[[Path], str] = fingerprint_file,
) -> Listing:
    """Draw the test images of a listing without splits, from the files' contents.

    Files are ordered by the sha256 of (seed, sha256 of the file). The first ones of each folder
    are its test images, see `first_share`; equal files of a class are in the same split. With
    `stratified: false`, each file is drawn by itself: an image is a test image if this sha256,
    read as a number in 0..1, is less than `test`. Then no image changes its split when others are
    added or removed, and the share of a class varies.

    Args:
        listing: from `images_of` with `split`.
        split: `test`, the share, `seed` and `stratified`.
        sha256_of: function from a file to its sha256.

    Raises:
        CdlError: a class has no image in one of the splits, or a file cannot be read.
    """
    places: list[str] = []
    for image in listing.images:
        try:
            places.append(fingerprint([split["seed"], sha256_of(image.path)]))
        except OSError as error:
            raise CdlError(f"{image.path} cannot be read: {error.strerror}") from error
    tested = _tested(listing, places, split)
    images = [
        replace(image, split=SPLITS[(image.path.parent, place) in tested])
        for image, place in zip(listing.images, places, strict=True)
    ]
    for name in SPLITS:
        without = sorted(set(listing.classes) - {i.label for i in images if i.split == name})
        if without:
            raise CdlError(
                f"split: with test {split['test']} and seed {split['seed']} the {name} split has "
                f"no image of class {', '.join(map(repr, without))}; use more images, with "
                "stratified: false another seed or share, or leave these classes out: names that "
                "begin with a dot are ignored"
            )
    return replace(listing, images=tuple(sorted(images, key=lambda i: SPLITS.index(i.split))))


def _tested(
    listing: Listing, places: Sequence[str], split: Mapping[str, Any]
) -> set[tuple[Path, str]]:
    """Return folder and place in the order of the draw of each test image, see `drawn`."""
    found: dict[Path, set[str]] = {}
    for image, place in zip(listing.images, places, strict=True):
        found.setdefault(image.path.parent, set()).add(place)
    share = split["test"]

    def chosen(own: set[str]) -> Iterable[str]:
        if split["stratified"]:
            return first_share(own, share)
        return (place for place in own if int(place[:13], 16) / 16**13 < share)

    tested = {(folder.name, place) for folder, own in found.items() for place in chosen(own)}
    return {
        (folder, place)
        for folder, own in found.items()
        for place in own
        if (folder.name, place) in tested  # equal files of a class, in all domains
    }


class _Walk:
    """Skipped files by suffix, and problems, of the folders that were listed."""

    def __init__(self) -> None:
        self.skipped: Counter[str] = Counter()
        self.problems: list[str] = []
        self._foreign: dict[str, list[Path]] = {}

    @property
    def n_foreign(self) -> int:
        """Number of images without a decoder."""
        return sum(map(len, self._foreign.values()))

    def visible(self, folder: Path) -> Iterator[Path]:
        """Yield the entries of a folder without hidden names, which are counted."""
        try:
            names = sorted(os.listdir(folder))
        except OSError as error:
            raise CdlError(f"{folder} cannot be read: {error.strerror}") from error
        for name in names:
            validate_name(folder / name)
            if name.startswith("."):
                self.skipped[HIDDEN] += 1
            else:
                yield folder / name

    def is_image(self, file: Path) -> bool:
        """Return whether a file has the suffix of an image; count other files.

        A file without a decoder is skipped if a converted image of the same name is beside it.
        """
        suffix = file.suffix.lower()
        if suffix in SUFFIXES:
            return True
        converted = suffix in FOREIGN and any(file.with_suffix(s).exists() for s in SUFFIXES)
        if suffix in FOREIGN and not converted:
            self._foreign.setdefault(suffix, []).append(file)
        else:
            self.skipped[suffix or "without suffix"] += 1
        return False

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """Note a `CdlError` as a problem."""
        try:
            yield
        except CdlError as error:
            self.problems.append(str(error))

    def all_problems(self) -> tuple[str, ...]:
        """Return the problems; files of one format without a decoder are one."""
        known = " ".join(sorted(SUFFIXES))
        formats = []
        for suffix, files in self._foreign.items():
            folder = os.path.commonpath([file.parent for file in files])
            more = f" and {len(files) - 1} more" if files[1:] else ""
            formats.append(
                f"{files[0]}{more}: invalid format {suffix}; convert or remove (expected {known}); "
                f"with ImageMagick: find {shlex.quote(folder)} -iname '*{suffix}' -exec magick "
                "mogrify -format jpg {} +, after which the originals are skipped"
            )
        return (*self.problems, *formats)


def _in_domains(place: Path, walk: _Walk) -> Iterator[tuple[str, Path]]:
    """Yield class and path of images in `place/DOMAIN/CLASS/`."""
    for folder in walk.visible(place):
        if folder.is_dir():
            yield from _in_classes(folder, walk)
        elif walk.is_image(folder):
            walk.problems.append(f"{folder} is not in a domain: move it into DOMAIN/CLASS/")


def _in_classes(place: Path, walk: _Walk) -> Iterator[tuple[str, Path]]:
    """Yield class and path of each image in `place/CLASS/`."""
    found: list[tuple[str, Path]] = []
    empty: list[str] = []
    for folder in walk.visible(place):
        if not folder.is_dir():
            if walk.is_image(folder):
                walk.problems.append(
                    f"{folder} is not in a class: move it into the folder of its class"
                )
            continue
        with walk.collecting():
            check_class_name(folder.name, place)
        before = len(found), len(walk.problems), walk.n_foreign
        for file in walk.visible(folder):
            if file.is_dir():
                walk.problems.append(
                    f"{file} is a folder inside a class, and its images would be skipped: move "
                    "them up, or rename it to begin with a dot"
                )
            elif walk.is_image(file):
                with walk.collecting():
                    validate_file(file)
                    found.append((folder.name, file))
        if before == (len(found), len(walk.problems), walk.n_foreign):
            empty.append(str(folder))
    if empty:
        names = f"the class {empty[0]} has" if len(empty) == 1 else f"{', '.join(empty)} have"
        walk.problems.append(
            f"{names} no image: remove the folder, add images, or begin its name with a dot"
        )
    yield from sorted(found, key=lambda pair: pair[1])


def _in_split_file(root: Path, place: Path) -> Iterator[tuple[str, Path]]:
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
            raise CdlError(f"{place}: invalid line {line!r}; expected class/name.jpg")
        if seen.setdefault(inside, i) != i:
            raise CdlError(f"{place}: {line!r} is repeated in lines {seen[inside]} and {i}")
        check_class_name(inside.parts[-2], place)
        if (root / inside).exists():  # packing reports all missing files in one error
            validate_file(root / inside)
        yield inside.parts[-2], root / inside


def _source_files(**options: Any) -> list[Path]:
    return images_of(**options).files


def _summarise(options: dict[str, Any], sha256_of: Callable[[Path], str]) -> Summary:
    listing = survey(**options)
    if options["split"] is not None:
        try:
            listing = drawn(listing, options["split"], sha256_of)
        except CdlError as error:
            listing = replace(listing, problems=(*listing.problems, str(error)))
    label = {name: i for i, name in enumerate(listing.classes)}
    pairs = [(image.split, label[image.label]) for image in listing.images]
    whole = counted(listing.classes, pairs, listing.files, listing.skipped)
    return replace(whole, problems=listing.problems)


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
            "Whether images are in DOMAIN/CLASS/*.jpg; the domains may then be the tasks.",
        ),
        "split": {
            "type": ["object", "null"],
            "additionalProperties": False,
            "required": ["test"],
            "default": None,
            "description": "For a folder without splits: {test: 0.2, seed: 0} draws them from the "
            "contents of each file.",
            "properties": {
                "test": number(
                    REQUIRED, "Share of the test images.", exclusiveMinimum=0, exclusiveMaximum=1
                ),
                "seed": integer(
                    0, "Seed of the draw, independent of the seeds of the runs.", minimum=0
                ),
                "stratified": flag(
                    True,
                    "Whether each class gives its share; false: each file is drawn by itself, so "
                    "that new images move no other.",
                ),
            },
        },
    },
    files=_source_files,
    listing=survey,
    summarise=_summarise,
)
