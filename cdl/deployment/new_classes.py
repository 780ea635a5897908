"""New classes as a user gives them, one folder of images each: checked, and cut for a test."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

from cdl.data.packing import prepare
from cdl.data.sources.decoding import UnreadableImage, decode
from cdl.data.sources.folder import SUFFIXES, Image, images_of
from cdl.runtime.artifacts import fingerprint_file
from cdl.runtime.errors import CdlError

_TESTED = 0.2  # of a class's images, where no folder of test images is given


@dataclass(frozen=True)
class NewClasses:
    """Classes of a task to come, with their images.

    names: in alphabetical order, which is that of learning.
    train: files to learn from.
    test: files to be asked about.
    """

    names: tuple[str, ...]
    train: tuple[Image, ...]
    test: tuple[Image, ...]

    @classmethod
    def read(cls, folder: Path, test: Path | None, known: Collection[str]) -> "NewClasses":
        """List one folder per class, and try every image.

        Args:
            folder: it holds CLASS/IMAGE.
            test: likewise, of the same classes; None: a fifth of the images of each class, at
                least one, is kept for the test, those whose bytes have the lowest sha256.
            known: classes that the learner knows.

        Raises:
            CdlError: a class is known, has one image, or is missing among the tests; there is no
                class; images cannot be read, all of which are named.
        """
        images = images_of(str(folder), split={}).images
        names = tuple(sorted({image.label for image in images}))
        if not names:
            raise CdlError(f"{folder} holds no class: needed are folders CLASS with images inside")
        taken = [name for name in names if name in known]
        if taken:
            raise CdlError(
                f"{folder}: it knows {', '.join(taken)} already; needed are new classes alone"
            )
        single = [name for name, n in Counter(i.label for i in images).items() if n == 1]
        if single:
            raise CdlError(
                f"{folder / single[0]} holds one image; needed are at least two of a class: to "
                "learn from, and to be asked about"
            )
        asked = () if test is None else images_of(str(test), split={}).images
        others = {image.label for image in asked} ^ set(names)
        if test is not None and others:
            raise CdlError(
                f"{test}: class {min(others)} is not in both folders; needed are the classes "
                f"{', '.join(names)}"
            )
        _try(image.path for image in (*images, *asked))
        if test is None:
            asked = tuple(_cut(images))
            images = tuple(image for image in images if image not in asked)
        return cls(names, images, asked)

    def pack(self, output: Path, short_side: int | None) -> None:
        """Write them as packed data of these classes alone."""
        splits = (("train", self.train), ("test", self.test))
        links = {
            f"{split}/{image.label}/{image.path.name}": image.path
            for split, images in splits
            for image in images
        }
        _pack(links, output, short_side)


def images_below(folder: Path) -> list[Path]:
    """Return all images of a folder, at any depth; raise `CdlError` as `NewClasses.read`."""
    found = [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in SUFFIXES]
    if not found:
        raise CdlError(f"{folder} holds no image; needed are some without labels, at any depth")
    _try(found)
    return found


def pack_unlabelled(images: Sequence[Path], output: Path, short_side: int | None) -> None:
    """Write images without labels as packed data, of which only the training split is read."""
    links = {f"train/any/{i}{path.suffix}": path for i, path in enumerate(images)}
    _pack({**links, f"test/any/copy{images[0].suffix}": images[0]}, output, short_side)


def _pack(links: Mapping[str, Path], output: Path, short_side: int | None) -> None:
    """Write files as packed data, by what they are called as SPLIT/CLASS/IMAGE."""
    with TemporaryDirectory() as temporary:
        for name, path in links.items():
            link = Path(temporary, name)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())
        prepare(output, {"name": "folder", "path": temporary}, short_side)


def _cut(images: Iterable[Image]) -> list[Image]:
    """Return a fifth of the images of each class, at least one, chosen by what is in the files."""
    chosen = []
    for _, group in groupby(images, lambda image: image.label):
        ranked = sorted(group, key=lambda image: fingerprint_file(image.path))
        chosen += ranked[: max(1, round(_TESTED * len(ranked)))]
    return chosen


def _try(paths: Iterable[Path]) -> None:
    """Raise `CdlError` that names every image that cannot be read."""
    wrong = []
    for path in paths:
        try:
            decode(path.read_bytes(), str(path))
        except (UnreadableImage, OSError) as error:
            wrong.append(str(error))
    if wrong:
        raise CdlError(f"{len(wrong)} of the images cannot be used: {'; '.join(wrong)}")
