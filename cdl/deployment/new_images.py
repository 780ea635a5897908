"""Images of new classes for `cdl learn` of a run, one folder for each class."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from cdl.data.packing import prepare
from cdl.data.sources.folder import images_of
from cdl.deployment.new_classes import New, NewItems
from cdl.device.decoding import decode, images_below
from cdl.runtime.artifacts import fingerprint_file
from cdl.runtime.errors import CdlError, Unreadable


class NewImages(NewItems):
    """Image files CLASS/IMAGE; unlabelled ones at any depth of a folder."""

    layout, item = "one folder of images per class", "image"

    def read(self, path: Path) -> list[New]:
        images = images_of(str(path), split={}).images
        _check_readable(image.path for image in images)
        return [New(i.label, fingerprint_file(i.path), i.path) for i in images]

    def place(self, path: Path, label: str) -> str:
        return str(path / label)

    def unlabelled(self, path: Path) -> list[New]:
        found = images_below(path)
        _check_readable(found)
        return [New("any", fingerprint_file(file), file) for file in found]

    def pack(
        self, train: Sequence[New], test: Sequence[New], output: Path, short_side: int | None
    ) -> None:
        with TemporaryDirectory() as temporary:
            for split, items in (("train", train), ("test", test)):
                for i, item in enumerate(items):
                    link = Path(temporary, split, item.label, f"{i:06}-{item.content.name}")
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.symlink_to(item.content.resolve())
            prepare(output, {"name": "folder", "path": temporary}, short_side)


def _check_readable(paths: Iterable[Path]) -> None:
    """Raise `CdlError` with the errors of all unreadable images."""
    errors = []
    for path in paths:
        try:
            decode(path.read_bytes(), str(path))
        except (Unreadable, OSError) as error:
            errors.append(str(error))
    if errors:
        raise CdlError(f"{len(errors)} images are unreadable: {'; '.join(errors)}")
