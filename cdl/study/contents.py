"""Digests of the contents of a user's files; modification times do not affect them.

To keep planning fast, a file is read again only if its size or time has changed. Sizes, times and
digests are stored in a small JSON file with the results (the memory), which may be deleted. Every
planning refreshes it, so nothing compares results with it. `reread` reads every file.
"""

import contextlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cdl.backbones.pretrained import files_in
from cdl.data.order import labels_of, sizes_of
from cdl.data.sources import SOURCES, SPLITS
from cdl.data.sources.folder import drawn, images_of
from cdl.layout import contents_memory, digest, record_of
from cdl.runtime.artifacts import fingerprint_file, read_json, write_json
from cdl.runtime.errors import CdlError
from cdl.spec import OrderSeed, Stream
from cdl.study.configuration import ConfigError
from cdl.study.jobs import Job


def files_of(source: Mapping[str, Any]) -> list[Path]:
    """Return all files that a user's source is read from; empty for a published source.

    Raises:
        ConfigError: files are missing or invalid.
    """
    options = {key: value for key, value in source.items() if key != "name"}
    files = SOURCES[source["name"]].files
    try:
        return files(**options) if files else []
    except CdlError as error:
        raise ConfigError(str(error)) from error


def contents(files: Iterable[Path], memory: Path) -> str:
    """Return a digest of the names and contents of files, see `hashes`."""
    return digest(sorted(hashes(files, memory).items()))


def images_contents(
    source: Mapping[str, Any], stream: Stream, task: int, known: Mapping[str, str]
) -> str:
    """Return a digest of the training images of a task.

    In a folder of images, every file has one class, so the digest covers only the images of the
    task. It covers all files for other sources, and for class orders that depend on the number of
    classes.

    Args:
        source: source of a dataset.
        stream: stream of a specification.
        task: index of the task, counted from 0.
        known: result of `hashes` for all files of the source.

    Raises:
        ConfigError: the tasks do not fit the classes in the folder.
    """
    options = {key: value for key, value in source.items() if key != "name"}
    order = stream.class_order
    drawn_order = order in ("seeded", "seeded_tasks") or isinstance(order, OrderSeed)
    domain = stream.domains[task : task + 1]
    list_images = SOURCES[source["name"]].listing
    if list_images is None or (drawn_order and not domain):
        return digest(sorted(known.items()))
    try:
        listing = list_images(**options)
        if options["split"] is not None:
            listing = drawn(listing, options["split"], lambda file: known[str(file)])
        classes, images = listing.classes, [i for i in listing.images if i.split == SPLITS[0]]
        if domain:
            own = [i for i in images if i.domain in domain]
            return digest([classes, [[str(i.path), known[str(i.path)]] for i in own]])
        labels = labels_of(order, classes) if isinstance(order, tuple) else range(len(classes))
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


def made_of_images(job: Job) -> bool:
    """Return whether the output of a job that reads the images of one task was made from them.

    If so, the rule can ignore the modification time of the packed data. If not, the time is
    needed: Snakemake does not compare the parameters of a job whose inputs are about to be made
    again, as `prepare_dataset` does after a change of images.

    Returns:
        True also for a published source, and if the record is missing or unreadable; False for a
        job that reads other images.
    """
    images: str | None = job.params.get("images")
    if not images:
        return images is not None
    try:
        made_of: Mapping[str, Any] = read_json(record_of(job.records[0].files[0]))["inputs"]
    except CdlError:  # not made yet, or damaged, which the job that reads it reports
        return True
    return made_of.get("images") == images


def domains_in(source: Mapping[str, Any]) -> list[str]:
    """Return the domains of a folder in alphabetical order; raise `ConfigError` as `files_of`."""
    try:
        listing = images_of(**{key: value for key, value in source.items() if key != "name"})
    except CdlError as error:
        raise ConfigError(str(error)) from error
    return sorted({image.domain for image in listing.images})


def hashes(files: Iterable[Path], memory: Path) -> dict[str, str]:
    """Return the sha256 of each file, by path.

    Args:
        files: existing files.
        memory: JSON file with size, time and sha256 of each file when it was last read; updated.
            It may be missing or damaged.

    Raises:
        ConfigError: a file cannot be read.
    """
    known = _read_memory(memory)
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
        with contextlib.suppress(CdlError):  # not essential: the next planning reads files again
            write_json(memory, {"files": now})
    return {name: sha256 for name, (_, _, sha256) in now.items()}


def reread(files: Iterable[Path]) -> str:
    """Read every file and return the digest of `contents`.

    Raises:
        CdlError: a file cannot be read.
    """
    found = {}
    for file in files:
        try:
            found[str(file)] = fingerprint_file(file)
        except OSError as error:
            raise CdlError(f"{file}: cannot be read ({error.strerror})") from error
    return digest(sorted(found.items()))


def _read_memory(memory: Path) -> dict[str, list[Any]]:
    """Return size, time and sha256 by path; empty if the memory is missing or damaged."""
    try:
        entries = dict(read_json(memory)["files"]).items()
    except (CdlError, KeyError, TypeError, ValueError):
        return {}
    return {name: e for name, e in entries if isinstance(e, list) and len(e) == 3}


class UserFiles:
    """A user's files that data and backbones are made from; digests are computed once.

    Attributes:
        data: arguments of `cdl.data.packing.prepare`, by name of the packed folder.
        backbones: sources of backbones, by name of their artifact.
    """

    def __init__(
        self, data: Mapping[str, Mapping[str, Any]], backbones: Mapping[str, Mapping[str, str]]
    ) -> None:
        self.data, self.backbones = data, backbones
        self._hashes: dict[str, dict[str, str]] = {}
        self._images: dict[tuple[str, str, int], str] = {}  # digests, by folder, stream and task

    def of_data(self, prepared: str) -> list[Path]:
        """Return all files that packed data are made from; empty for a published source."""
        return files_of(self.data[prepared]["source"])

    def of_backbone(self, name: str) -> list[Path]:
        """Return the files that a backbone is made from; empty for other sources."""
        source = self.backbones[name]
        if source["source"] == "folder":
            return files_in(Path(source["model"]))
        return [Path(source["model"])] if source["source"] in ("file", "onnx") else []

    def data_digest(self, prepared: str) -> str:
        """Return a digest of the files of a source; empty for a published source."""
        files = self._data_hashes(prepared)
        return digest(sorted(files.items())) if files else ""

    def backbone_digest(self, name: str) -> str:
        """Return a digest of a backbone's file; empty for other sources."""
        files = self.of_backbone(name)
        return contents(files, contents_memory("backbones", name)) if files else ""

    def images_digest(self, prepared: str, stream: Stream, task: int) -> str:
        """Return a digest of a task's training images; empty for a published source."""
        if not (known := self._data_hashes(prepared)):
            return ""
        key = (prepared, json.dumps(stream.to_json(), sort_keys=True), task)
        if key not in self._images:  # list the folder once for all learners
            source = self.data[prepared]["source"]
            self._images[key] = images_contents(source, stream, task, known)
        return self._images[key]

    def _data_hashes(self, prepared: str) -> dict[str, str]:
        if prepared not in self._hashes:
            files = self.of_data(prepared)
            memory = contents_memory("data", prepared)
            self._hashes[prepared] = hashes(files, memory) if files else {}
        return self._hashes[prepared]
