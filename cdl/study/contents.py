"""What a user's files hold, told by a digest of their contents: their times do not count.

A file is read again only if its size or time has changed since it was last read, so that planning
stays fast; what was found then is kept in a small file beside the results, which vouches for
itself and may be deleted. `altered` reads everything.
"""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cdl.data.order import labels_of, sizes_of
from cdl.data.sources import SOURCES, SPLITS
from cdl.data.sources.folder import drawn, images_of
from cdl.layout import contents_memory, digest, record_of
from cdl.runtime.artifacts import fingerprint_file, read_json, write_json
from cdl.runtime.errors import CdlError
from cdl.spec import Stream
from cdl.study.configuration import ConfigError


def files_of(source: Mapping[str, Any]) -> list[Path]:
    """Return all files that decide what a user's source holds; none of a published source.

    Raises:
        ConfigError: they are not as the source describes them.
    """
    options = {key: value for key, value in source.items() if key != "name"}
    files = SOURCES[source["name"]].files
    try:
        return files(**options) if files else []
    except CdlError as error:
        raise ConfigError(str(error)) from error


def contents(files: Iterable[Path], memory: Path) -> str:
    """Return a digest of names and contents of files, see `hashes`."""
    return digest(sorted(hashes(files, memory).items()))


def images_contents(
    source: Mapping[str, Any], stream: Stream, task: int, known: Mapping[str, str]
) -> str:
    """Return a digest of the training images of a task, whatever other classes lie beside them.

    Only in a folder of images a file has one class; in another source, and where what a task
    learns depends on how many classes there are, the digest is of all files.

    Args:
        source: of a dataset.
        stream: of a specification.
        task: counted from 0.
        known: of `hashes`, for all files of the source.

    Raises:
        ConfigError: the tasks cannot be made of the classes that are there.
    """
    options = {key: value for key, value in source.items() if key != "name"}
    order = stream.class_order
    domain = stream.domains[task : task + 1]
    listed = SOURCES[source["name"]].listing
    if listed is None or (order == "seeded" and not domain):
        return digest(sorted(known.items()))
    try:
        listing = listed(**options)
        if options["split"] is not None:
            listing = drawn(listing, options["split"], lambda file: known[str(file)])
        classes, images = listing.classes, [i for i in listing.images if i.split == SPLITS[0]]
        if domain:
            own = [i for i in images if i.domain in domain]
            return digest([classes, [[str(i.path), known[str(i.path)]] for i in own]])
        labels = range(len(classes)) if order == "natural" else labels_of(order, classes)
        sizes = sizes_of(stream.tasks, len(labels))
    except CdlError as error:
        raise ConfigError(f"{options['path']}: {error}") from error
    start = sum(sizes[:task])
    found: dict[str, list[tuple[str, str]]] = {
        classes[label]: [] for label in labels[start : start + sizes[task]]
    }
    for image in images:
        if image.label in found:
            found[image.label].append((str(image.path), known[str(image.path)]))
    return digest(list(found.items()))


def made_of_images(output: str, images: str) -> bool:
    """Whether an output's record names a digest of images, or cannot say or need not.

    Then a rule need not look at the data's times. It has to otherwise: Snakemake compares no
    parameters of a job behind one that runs again, as `prepare_dataset` does for other images.

    Args:
        output: of a job whose task has images of its own.
        images: of `images_contents`, empty for a published source.
    """
    if not images:
        return True
    try:
        made_of: Mapping[str, Any] = read_json(record_of(output))["inputs"]
    except CdlError:  # nothing is there yet, or its reader tells what is wrong
        return True
    return made_of.get("images") == images


def domains_in(source: Mapping[str, Any]) -> list[str]:
    """Return the domains of a folder, in the order of the alphabet; `ConfigError` as `files_of`."""
    try:
        listing = images_of(**{key: value for key, value in source.items() if key != "name"})
    except CdlError as error:
        raise ConfigError(str(error)) from error
    return sorted({image.domain for image in listing.images})


def hashes(files: Iterable[Path], memory: Path) -> dict[str, str]:
    """Return the sha256 of each file by its path.

    Args:
        files: they exist.
        memory: JSON of size, time and sha256 of each, as they were; it may be missing or damaged.

    Raises:
        ConfigError: a file cannot be read.
    """
    known = _known(memory)
    now: dict[str, list[Any]] = {}
    for file in files:
        try:
            status = file.stat()
            stamp = [status.st_size, status.st_mtime_ns]
            found = known.get(str(file), [])
            sha256 = found[2] if found[:2] == stamp else fingerprint_file(file)
        except OSError as error:
            raise ConfigError(f"{file}: cannot be read ({error.strerror})") from error
        now[str(file)] = [*stamp, sha256]
    if now != known:
        with contextlib.suppress(CdlError):  # without it, planning takes longer the next time
            write_json(memory, {"files": now})
    return {name: sha256 for name, (_, _, sha256) in now.items()}


def altered(files: Iterable[Path], memory: Path) -> Iterator[tuple[Path, str]]:
    """Read every file, whatever its time, and yield those that are not what they were.

    Args:
        files: of `files_of`, as they are now.
        memory: of `hashes`, written when what was learnt from them was planned.

    Yields:
        A file, and whether it is `changed`, `unreadable`, `new` or `missing`.
    """
    known = _known(memory)
    there = {str(file): file for file in files}
    for name, file in there.items():
        try:
            sha256 = fingerprint_file(file)
        except OSError:
            yield file, "unreadable"
            continue
        if name not in known:
            yield file, "new"
        elif sha256 != known[name][2]:
            yield file, "changed"
    for name in known.keys() - there.keys():
        yield Path(name), "missing"


def _known(memory: Path) -> dict[str, list[Any]]:
    """Return what a memory holds; nothing if it is missing, damaged or something else."""
    try:
        entries = dict(read_json(memory)["files"]).items()
    except (CdlError, KeyError, TypeError, ValueError):
        return {}
    return {name: e for name, e in entries if isinstance(e, list) and len(e) == 3}


class UserFiles:
    """Files of a user that data and backbones are made from, with digests; each is read once.

    Attributes:
        data: sources of packed data, arguments of `cdl.data.packing.prepare`, by folder name.
        backbones: sources of backbones by the name of their artifact.
    """

    def __init__(
        self, data: Mapping[str, Mapping[str, Any]], backbones: Mapping[str, Mapping[str, str]]
    ) -> None:
        self.data, self.backbones = data, backbones
        self._hashes: dict[str, dict[str, str]] = {}
        self._images: dict[tuple[str, str, int], str] = {}  # digests of tasks' images

    def of_data(self, prepared: str) -> list[Path]:
        """Return all files that packed data are made from; none of a published source."""
        return files_of(self.data[prepared]["source"])

    def of_backbone(self, name: str) -> list[Path]:
        """Return the file that a backbone is made from, if it is made from one."""
        source = self.backbones[name]
        return [Path(source["model"])] if source["source"] == "file" else []

    def data_digest(self, prepared: str) -> str:
        """Return a digest of the contents of a source's files; empty for a published source."""
        files = self._data_hashes(prepared)
        return digest(sorted(files.items())) if files else ""

    def backbone_digest(self, name: str) -> str:
        """Return a digest of the contents of a backbone's file; empty without one."""
        files = self.of_backbone(name)
        return contents(files, contents_memory("backbones", name)) if files else ""

    def images_digest(self, prepared: str, stream: Stream, task: int) -> str:
        """Return a digest of a task's training images; empty for a published source."""
        if not (known := self._data_hashes(prepared)):
            return ""
        key = (prepared, json.dumps(stream.to_json(), sort_keys=True), task)
        if key not in self._images:  # the folder is listed once for all learners
            source = self.data[prepared]["source"]
            self._images[key] = images_contents(source, stream, task, known)
        return self._images[key]

    def _data_hashes(self, prepared: str) -> dict[str, str]:
        if prepared not in self._hashes:
            files = self.of_data(prepared)
            memory = contents_memory("data", prepared)
            self._hashes[prepared] = hashes(files, memory) if files else {}
        return self._hashes[prepared]
