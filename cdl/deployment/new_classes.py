"""Read and check the images of new classes for `cdl learn`, and split off test images."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

from cdl.data.packing import prepare
from cdl.data.sources.decoding import UnreadableImage, decode, images_below
from cdl.data.sources.folder import Image, images_of
from cdl.runtime.artifacts import fingerprint_file
from cdl.runtime.errors import CdlError

_TEST_SHARE = 0.2  # share of a class's images, without a folder of test images


@dataclass(frozen=True)
class NewClasses:
    """The classes of a new task with their images.

    names: class names in alphabetical order, the order in which they are learnt.
    train: training images.
    test: test images.
    """

    names: tuple[str, ...]
    train: tuple[Image, ...]
    test: tuple[Image, ...]

    @classmethod
    def read(cls, folder: Path, test: Path | None, known: Collection[str]) -> "NewClasses":
        """List the images of one folder per class and check that they are readable.

        Args:
            folder: folder with files CLASS/IMAGE.
            test: the same for test images of the same classes; None: a fifth of the images of each
                class, at least one, is used for the test, those with the lowest sha256.
            known: classes that the learner has learnt already.

        Raises:
            CdlError: there is no class; a class is known already, has one image and no test
                images, or is missing in `test`; images are unreadable, which are all listed.
        """
        images = images_of(str(folder), split={}).images
        names = tuple(sorted({image.label for image in images}))
        if not names:
            raise CdlError(f"{folder}: contains no class; expected one folder of images per class")
        taken = [name for name in names if name in known]
        if taken:
            raise CdlError(
                f"{folder}: {', '.join(taken)}: learnt already; expected only new classes"
            )
        single = [name for name, n in Counter(i.label for i in images).items() if n == 1]
        if single and test is None:
            raise CdlError(
                f"{folder / single[0]}: contains one image; expected at least two, one of them for "
                "the test"
            )
        tested = () if test is None else images_of(str(test), split={}).images
        unmatched = {image.label for image in tested} ^ set(names)
        if test is not None and unmatched:
            raise CdlError(
                f"{test}: class {min(unmatched)} is not in both folders; expected the classes "
                f"{', '.join(names)}"
            )
        _check_readable(image.path for image in (*images, *tested))
        if test is None:
            tested = tuple(_test_images(images))
            images = tuple(image for image in images if image not in tested)
        return cls(names, images, tested)

    def pack(self, output: Path, short_side: int | None) -> None:
        """Write the images as packed data of these classes only."""
        splits = (("train", self.train), ("test", self.test))
        links = {
            f"{split}/{image.label}/{image.path.name}": image.path
            for split, images in splits
            for image in images
        }
        _pack_links(links, output, short_side)


def readable_images(folder: Path) -> list[Path]:
    """List all images of a folder, at any depth.

    Raises:
        CdlError: there is no image, or images are unreadable, which are all listed.
    """
    found = images_below(folder)
    _check_readable(found)
    return found


def pack_unlabelled(images: Sequence[Path], output: Path, short_side: int | None) -> None:
    """Write unlabelled images as packed data, of which only the training split is read."""
    links = {f"train/any/{i}{path.suffix}": path for i, path in enumerate(images)}
    _pack_links({**links, f"test/any/copy{images[0].suffix}": images[0]}, output, short_side)


def _pack_links(links: Mapping[str, Path], output: Path, short_side: int | None) -> None:
    """Write files as packed data; the keys are SPLIT/CLASS/IMAGE."""
    with TemporaryDirectory() as temporary:
        for name, path in links.items():
            link = Path(temporary, name)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())
        prepare(output, {"name": "folder", "path": temporary}, short_side)


def _test_images(images: Iterable[Image]) -> list[Image]:
    """Return a fifth of the images of each class, at least one, chosen by their sha256."""
    chosen = []
    for _, group in groupby(images, lambda image: image.label):
        ranked = sorted(group, key=lambda image: fingerprint_file(image.path))
        chosen += ranked[: max(1, round(_TEST_SHARE * len(ranked)))]
    return chosen


def _check_readable(paths: Iterable[Path]) -> None:
    """Raise `CdlError` with the errors of all unreadable images."""
    errors = []
    for path in paths:
        try:
            decode(path.read_bytes(), str(path))
        except (UnreadableImage, OSError) as error:
            errors.append(str(error))
    if errors:
        raise CdlError(f"{len(errors)} images are unreadable: {'; '.join(errors)}")
