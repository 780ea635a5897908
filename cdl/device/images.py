"""Images that a student takes, and the student that takes them."""

from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import TextIO

import numpy as np
from PIL import Image

from cdl.device.decoding import FORMATS, decode, images_below, suffixes, upright
from cdl.device.errors import CdlError
from cdl.device.items import BATCH, Items, check_new_name
from cdl.device.student import DeviceStudent

Picture = str | PathLike[str] | Image.Image | np.ndarray
Pictures = Picture | Iterable[Picture]
MOST_PIXELS = 2**22  # of the images that are in memory; a larger file is made smaller
SIDES = (224, 224)  # of random images


class Images(Items):
    """Images of any sizes; a batch has images of one size, which the graph resizes."""

    kind, argument, column = "images", "PATH", "file"
    given = "images or folders; -: paths from stdin"
    layout, path = "FOLDER/CLASS/IMAGE", "FOLDER"
    packages = ("Pillow",)

    @classmethod
    def open(cls, folder: Path) -> "Images":
        """Return images, which are the same for all students."""
        return cls()

    def several(self, given: Pictures) -> list[Picture]:
        """Return a list of images, also for a single image."""
        if isinstance(given, np.ndarray):
            return [given] if given.ndim == 3 else list(given)
        if isinstance(given, str | PathLike | Image.Image):
            return [given]
        return list(given)

    def batches(self, items: Iterable[Picture]) -> Iterator[tuple[list[int], list[np.ndarray]]]:
        """Yield positions and pixels of images of one size: up to `BATCH` and `MOST_PIXELS`."""
        held: dict[tuple[int, ...], dict[int, np.ndarray]] = {}
        for position, image in enumerate(map(read, items)):
            held.setdefault(image.shape, {})[position] = image
            if sum(image.size for own in held.values() for image in own.values()) > 3 * MOST_PIXELS:
                yield from ((list(own), list(own.values())) for own in held.values())
                held = {}
            elif len(held[image.shape]) == BATCH:
                own = held.pop(image.shape)
                yield list(own), list(own.values())
        yield from ((list(own), list(own.values())) for own in held.values())

    def array(self, given: Pictures) -> np.ndarray:
        """Return pixels `[n, H, W, 3]` uint8 of images of one size."""
        pixels = [read(image) for image in self.several(given)]
        sizes = {image.shape[:2] for image in pixels}
        if not pixels:
            raise CdlError("images: there is none; expected at least one")
        if len(sizes) > 1:
            raise CdlError(f"images: have {len(sizes)} sizes; expected one size per batch")
        return np.stack(pixels)

    def listed(self, arguments: Sequence[str], stdin: TextIO) -> list[str]:
        """List the image files of the paths on a command line.

        Args:
            arguments: files; folders, which are searched for images at any depth; `-`: paths from
                stdin.
            stdin: stream with one path per line.

        Raises:
            CdlError: a folder contains no image.
        """
        files: list[str] = []
        for path in arguments:
            if path == "-":
                files += [line.rstrip("\n") for line in stdin if line.strip()]
            elif Path(path).is_dir():
                files += map(str, images_below(path))
            else:
                files.append(path)
        return files

    def by_class(self, path: Path) -> dict[str, list[Path]]:
        """List the images in `path/CLASS/IMAGE`, classes and images by name.

        Names that begin with a dot are ignored, and so are files without the suffix of an image.

        Raises:
            CdlError: there is no class, a class has no image, or an image has no class.
        """
        known = suffixes()
        try:
            entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
        except OSError as error:
            raise CdlError(f"{path}: cannot be read ({error.strerror})") from error
        found: dict[str, list[Path]] = {}
        for entry in entries:
            if entry.is_dir():
                inside = sorted(file for file in entry.iterdir() if not file.name.startswith("."))
                images = [file for file in inside if file.suffix.lower() in known]
                if any(file.is_dir() for file in inside):
                    raise CdlError(
                        f"{entry}: contains a folder; expected images only: move them up"
                    )
                if not images:
                    raise CdlError(f"{entry}: contains no image; expected {', '.join(FORMATS)}")
                found.setdefault(check_new_name(entry.name, path), []).extend(images)
            elif entry.suffix.lower() in known:
                raise CdlError(f"{entry}: is not in the folder of a class; move it into one")
        if not found:
            raise CdlError(f"{path}: contains no class; expected one folder of images per class")
        return found

    def unlabelled(self, path: Path) -> list[Path]:
        """Return the images below a folder."""
        return images_below(path)

    def random(self, n: int, size: tuple[int, int] | None = None) -> list[np.ndarray]:
        """Return images of random pixels of a height and width."""
        return list(np.random.default_rng(n).integers(0, 256, (n, *(size or SIDES), 3), np.uint8))


class Student(DeviceStudent):
    """A student of images in its folder; see `DeviceStudent`."""

    takes = Images


def read(image: Picture) -> np.ndarray:
    """Return an image as uint8 `[H, W, 3]`; raise `CdlError` if it is unreadable or invalid."""
    if isinstance(image, Image.Image):
        try:
            return upright(image, "the image", MOST_PIXELS)
        except OSError as error:  # Pillow reads the file only now
            raise CdlError(f"the image cannot be read ({error})") from error
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise CdlError(
                f"image: invalid array {image.dtype} {list(image.shape)}; expected uint8 "
                "[height, width, 3]"
            )
        return image
    try:
        return decode(Path(image).read_bytes(), str(image), MOST_PIXELS)
    except OSError as error:
        raise CdlError(f"{image}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # a name with NUL or with half of a surrogate pair
        raise CdlError(f"{str(image)!r}: cannot be read ({error})") from error
