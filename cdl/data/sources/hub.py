"""Image datasets in Parquet on the Hugging Face Hub, fetched at one revision.

`fetch` downloads the files to `ROOT/ID/REVISION` under their names in the repository, where they
are read. Their sha256 is recorded at the first fetch and verified at every later one.
"""

import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from cdl.data.sources import SourceFacts
from cdl.data.sources.items import Source
from cdl.data.sources.summary import Summary, summary_of
from cdl.data.sources.tables import Columns, items_of, kind_of, read_classes, tables_of
from cdl.device.names import check_class_name
from cdl.runtime.artifacts import fingerprint_file, replacing, write_json
from cdl.runtime.errors import CdlError
from cdl.runtime.fetching import RECORDS, snapshot
from cdl.runtime.options import REQUIRED, text
from cdl.runtime.outside import json_object

log = logging.getLogger(__name__)

TRAIN, TEST = "data/train-*.parquet", "data/test-*.parquet"


def folder_of(root: str, id: str, revision: str) -> Path:
    """Return the folder of a dataset's files."""
    return Path(root, id, revision)


def read(
    id: str,
    revision: str,
    root: str = "data/hub",
    train: str = TRAIN,
    test: str = TEST,
    image: str = "image",
    text: str | None = None,
    label: str = "label",
) -> Source:
    """Read a dataset of images or texts in Parquet that `fetch_dataset` downloaded from the Hub.

    Args:
        id: of the repository, OWNER/NAME.
        revision: commit of the repository.
        root: folder of all such datasets; this one is in ROOT/ID/REVISION.
        train: glob of the training files in the repository.
        test: glob of the test files.
        image: column of encoded bytes (or of structs with a field `bytes`).
        text: column of texts, which are then read instead of images; or None.
        label: column of integers from 0; class names are those in the files' metadata, if any.
    """
    path, columns = str(folder_of(root, id, revision)), Columns(text or image, label, None, None)
    tables, kind = tables_of(path, train, test), kind_of({"text": text})
    classes = read_classes(path, tables, columns)
    names = class_names(tables["train"][0], label, classes)
    return Source(names, items_of(path, tables, columns, kind), modality=kind)


def fetch(
    record: str | Path,
    root: str,
    id: str,
    revision: str,
    train: str,
    test: str,
    image: str,
    label: str,
    text: str | None = None,
    mirror: str | None = None,
    offline: bool = False,
) -> None:
    """Fetch a dataset's Parquet files and write their sha256 to `record` (JSON).

    If all recorded files are already present, the network is not used.

    Args:
        record: file to write when all files are present and verified.
        root: folder of all such datasets; this one is in ROOT/ID/REVISION.
        id: of the repository, OWNER/NAME.
        revision: commit of the repository.
        train: glob of the training files in the repository.
        test: glob of the test files.
        image: column of the images, which are not read here.
        label: column of labels from 0, without gaps.
        text: column of texts, which are not read here.
        mirror: folder with the files in ID/REVISION.
        offline: whether to use no network.

    Raises:
        CdlError: a file cannot be fetched, differs from its record, or has invalid labels.
    """
    folder, patterns = folder_of(root, id, revision), (train, test)
    sums = Sums(id, revision)
    if not sums.complete(folder, patterns):
        if mirror is not None:
            _copy_from_mirror(mirror, f"{id}/{revision}", folder, patterns)
        elif not offline:
            _download(id, revision, folder, patterns)
        elif sums.known(patterns) or not _has(folder, patterns):
            raise CdlError(
                f"fetch.offline is set; place these files manually: {train} and {test} of "
                f"https://huggingface.co/datasets/{id}/tree/{revision} into {folder}; or set "
                f"fetch.mirror to a folder that contains {id}/{revision}"
            )
    tables = tables_of(str(folder), train, test)
    found = {
        file.relative_to(folder).as_posix(): fingerprint_file(file)
        for files in tables.values()
        for file in files
    }
    sums.verify(found, folder, patterns)
    read_classes(str(folder), tables, Columns(image, label, None, None))
    sums.remember(found)
    write_json(record, found)


def check(root: str, id: str, revision: str, **_: Any) -> None:
    """Raise `CdlError` if a present file differs from its record."""
    folder, sums = folder_of(root, id, revision), Sums(id, revision)
    there = [name for name in sums.recorded if (folder / name).is_file()]
    sums.verify({name: fingerprint_file(folder / name) for name in there}, folder, ())


def class_names(file: Path, label: str, classes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the class names in a file's metadata if they match the labels, else `classes`.

    Raises:
        CdlError: a name is invalid.
    """
    import pyarrow.parquet as pq

    described = (pq.read_schema(file).metadata or {}).get(b"huggingface", b"{}")
    try:
        names = json_object(described)["info"]["features"][label]["names"]
    except (CdlError, KeyError, TypeError):
        return classes
    right = isinstance(names, list) and len(set(map(str, names))) == len(names) == len(classes)
    return tuple(check_class_name(str(name), file) for name in names) if right else classes


class Sums:
    """Recorded sha256 of a dataset's files, in the format of sha256sum."""

    def __init__(self, id: str, revision: str) -> None:
        self.file = RECORDS / f"{id.replace('/', '--')}@{revision}.sha256"
        self.recorded: dict[str, str] = {}
        if self.file.is_file():
            lines = self.file.read_text().splitlines()
            self.recorded = {name: sha256 for sha256, name in (x.split("  ", 1) for x in lines)}

    def known(self, patterns: tuple[str, ...]) -> bool:
        """Return whether files of all patterns are recorded."""
        return all(any(_matches(name, p) for name in self.recorded) for p in patterns)

    def complete(self, folder: Path, patterns: tuple[str, ...]) -> bool:
        """Return whether files of all patterns are recorded and all of them are present."""
        return self.known(patterns) and not self._missing(folder, patterns)

    def verify(self, found: Mapping[str, str], folder: Path, patterns: tuple[str, ...]) -> None:
        """Raise `CdlError` if a file is missing or differs from its record.

        Args:
            found: sha256 of the files in `folder`.
            folder: folder of the files.
            patterns: globs; every recorded file that matches one must be present.
        """
        missing = self._missing(folder, patterns)
        wrong = [n for n, sha256 in found.items() if self.recorded.get(n, sha256) != sha256]
        for name in wrong[:1]:
            raise CdlError(
                f"{folder / name} has sha256 {found[name]}, expected {self.recorded[name]} "
                f"({self.file}): delete it and run again"
            )
        for name in missing[:1]:
            raise CdlError(f"{folder / name} is missing but recorded in {self.file}: put it there")

    def remember(self, found: Mapping[str, str]) -> None:
        """Record files that are not recorded yet."""
        if found.keys() <= self.recorded.keys():
            return
        with replacing(self.file) as temporary:
            lines = sorted((self.recorded | dict(found)).items())
            temporary.write_text("".join(f"{sha256}  {name}\n" for name, sha256 in lines))
        log.info("recorded the sha256 of %d files in %s", len(found), self.file)

    def _missing(self, folder: Path, patterns: tuple[str, ...]) -> list[str]:
        wanted = [n for n in self.recorded if any(_matches(n, p) for p in patterns)]
        return [name for name in wanted if not (folder / name).is_file()]


def _matches(name: str, pattern: str) -> bool:
    """Return whether `Path.glob` finds a name; the Hub's `*` also crosses folders."""
    same_depth = len(PurePosixPath(name).parts) == len(PurePosixPath(pattern).parts)
    return same_depth and PurePosixPath(name).match(pattern)


def _has(folder: Path, patterns: tuple[str, ...]) -> bool:
    return all(any(folder.glob(pattern)) for pattern in patterns)


def _copy_from_mirror(mirror: str, inside: str, folder: Path, patterns: tuple[str, ...]) -> None:
    place = Path(mirror, inside)
    if "://" in mirror:
        raise CdlError(
            f"fetch.mirror: {mirror} is an address, where the files of {inside} cannot be listed; "
            "expected a folder; or set HF_ENDPOINT to a server that mirrors the Hub"
        )
    if not _has(place, patterns):
        raise CdlError(
            f"fetch.mirror: {place} does not contain {' and '.join(patterns)}; put the files there"
        )
    for file in (file for pattern in patterns for file in sorted(place.glob(pattern))):
        with replacing(folder / file.relative_to(place)) as temporary:
            shutil.copyfile(file, temporary)


def _download(id: str, revision: str, folder: Path, patterns: tuple[str, ...]) -> None:
    log.info("fetching %s of %s at %s from the Hub", " and ".join(patterns), id, revision)
    try:
        snapshot(id, revision, folder, patterns)
    except OSError as error:
        raise CdlError(
            f"{id} at {revision} could not be fetched from the Hub ({error}); run again, or put "
            f"{' and '.join(patterns)} into {folder} manually"
        ) from error


def _summarise(options: dict[str, Any], sha256_of: Callable[[Path], str]) -> Summary:
    folder = folder_of(options["root"], options["id"], options["revision"])
    if not folder.is_dir():
        raise CdlError(
            f"{folder} does not exist yet, and its classes are known only from its files: fetch it "
            "with `cdl run CONFIG --until fetch_dataset`"
        )
    return summary_of(read(**options))


HUB = SourceFacts(
    read=read,
    description="A dataset of images or texts in Parquet on the Hugging Face Hub, fetched at one "
    "commit, recorded and verified.",
    options={
        "id": text(
            REQUIRED,
            "The repository, OWNER/NAME.",
            pattern="^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$",
        ),
        "revision": text(
            REQUIRED,
            "The commit, 40 hexadecimal digits; a branch is refused, because its contents change.",
            pattern="^[0-9a-f]{40}$",
        ),
        "root": text(
            "data/hub",
            "Folder of such datasets; this one is in ROOT/ID/REVISION.",
            minLength=1,
        ),
        "train": text(TRAIN, "Glob of the training files in the repository."),
        "test": text(TEST, "Glob of the test files in the repository."),
        "image": text("image", "Column of encoded images."),
        "text": text(None, "Column of texts, instead of encoded images; null: images."),
        "label": text("label", "Column of integer labels from 0."),
    },
    modality=kind_of,
    fetch=fetch,
    check=check,
    summarise=_summarise,
)
