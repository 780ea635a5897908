"""Images for an update of a student: one folder of images for each class."""

from collections.abc import Mapping
from pathlib import Path

from cdl.data.sources.decoding import FORMATS, suffixes
from cdl.data.sources.names import check_class_name
from cdl.deployment.device.classifier import Pictures
from cdl.runtime.errors import CdlError

_SIDEWAYS = ("/", "\\")


def check_new_name(name: object, where: object) -> str:
    """Return the name of a class that can also be the name of a folder; else raise `CdlError`."""
    checked = check_class_name(name, where)
    if (
        checked.startswith(".")
        or any(c in checked for c in _SIDEWAYS)
        or len(checked.encode()) > 255
    ):
        raise CdlError(
            f"{str(where)!r:.300}: invalid class name {checked!r:.100}; expected the name of a "
            "folder: up to 255 bytes, no slash, no leading dot"
        )
    return checked


def images_by_class(folder: Path) -> dict[str, list[Path]]:
    """List the images in `folder/CLASS/IMAGE`, classes and images by name.

    Names that begin with a dot are ignored, and so are files without the suffix of an image.

    Raises:
        CdlError: there is no class, a class has no image, or an image has no class.
    """
    known = suffixes()
    try:
        entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise CdlError(f"{folder}: cannot be read ({error.strerror})") from error
    found = {}
    for entry in entries:
        if entry.is_dir():
            inside = sorted(path for path in entry.iterdir() if not path.name.startswith("."))
            images = [path for path in inside if path.suffix.lower() in known]
            if any(path.is_dir() for path in inside):
                raise CdlError(f"{entry}: contains a folder; expected images only: move them up")
            if not images:
                raise CdlError(f"{entry}: contains no image; expected {', '.join(FORMATS)}")
            found[check_new_name(entry.name, folder)] = images
        elif entry.suffix.lower() in known:
            raise CdlError(f"{entry}: is not in the folder of a class; move it into one")
    if not found:
        raise CdlError(f"{folder}: contains no class; expected one folder of images per class")
    return found


def check_images(images: Mapping[str, Pictures]) -> None:
    """Raise `CdlError` unless there are classes, by valid names."""
    if not images:
        raise CdlError("images: contain no class; expected at least one, with its images")
    for name in images:
        check_new_name(name, "images")
