"""Versions of a student in its folder: each is whole or absent, and one file names the current one.

The files in the folder itself are version 0, the exported one. Version `n` is the folder
`versions/n` with `classes.txt`, `memory.safetensors` and a `manifest.json` that also covers the
files of version 0 which it uses. The file `current` is the pointer: sealed, with the number of the
current version, the sha256 of its manifest, and the numbers of unused versions, which were undone
or are being made. It is written last, by one atomic replacement. Without it, and with a plain
number in it, as cdl before 0.3 wrote, version 0 is the current one only if there is no other.
"""

import contextlib
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from cdl.device.errors import CdlError
from cdl.device.sealed import REMEDY, read_sealed, sealed, sha256_of
from cdl.device.stored import MEMORY

CURRENT, VERSIONS, MANIFEST = "current", "versions", "manifest.json"
# what a student reads where it exists
READ = ("model.onnx", "model.pte", "classes.txt", "preprocessing.json", "tokenizer.json", MEMORY)
EDITED = ("card.md", "student.py")  # files that no prediction reads
KEPT = 4  # the current version and those that `undo` can return to, besides version 0
_NUMBER = range(10**9)
_POINTER = {"version": _NUMBER, "manifest": str, "unused": [range(1, 10**9)]}
_NAME = r"\w[\w.-]*(/\w[\w.-]*)*"  # of a file in a manifest
_SHARED = "../../"  # from a version to the files of version 0


def place_of(folder: Path, version: int) -> Path:
    """Return the folder with the files of a version."""
    return folder / VERSIONS / str(version) if version else folder


def current_version(folder: Path) -> int:
    """Return the number of the current version; raise `CdlError` if that is uncertain."""
    return _pointer(folder)[0]


def _pointer(folder: Path) -> tuple[int, list[int]]:
    """Return the current version and the unused ones that are there."""
    file, numbers = folder / CURRENT, _numbers(folder)
    remedy = f"remove {file} to return to the export"
    if numbers:  # a plain number is a pointer
        repair = f"`echo {max(numbers)} > {shlex.quote(str(file))}` returns to the last of the"
        remedy = f"{repair} versions {', '.join(map(str, sorted(numbers)))}"
    try:
        text = file.read_bytes().strip() if file.exists() else b"0"
    except OSError as error:
        raise CdlError(f"{file}: cannot be read ({error.strerror}); {remedy}") from error
    if text.isdigit() and len(text) <= len(str(_NUMBER[-1])):
        version, unused, same = int(text), [], bool(int(text)) or not numbers
    else:
        found = read_sealed(file, _POINTER, remedy)
        version, unused = found["version"], [n for n in found["unused"] if n in numbers]
        manifest = place_of(folder, version) / MANIFEST
        same = not manifest.is_file() or found["manifest"] == sha256_of(manifest)
    if version and version not in numbers:
        raise CdlError(f"{place_of(folder, version)}: is missing; {remedy}")
    if not same or version in unused:
        raise CdlError(f"{file}: is missing, or was damaged or changed; {remedy}")
    return version, unused


def versions_of(folder: Path) -> list[int]:
    """Return the current version and those before it to which `undo` can return, in turn."""
    chain = [current_version(folder)]
    while chain[-1]:
        parent = read_manifest(folder, chain[-1])["made_from"]["parent"]
        if not place_of(folder, parent).is_dir():
            break
        chain.append(parent)
    return chain


def read_manifest(folder: Path, version: int = 0) -> dict[str, Any]:
    """Return the manifest of a version; raise `CdlError` if it is missing, damaged or invalid."""
    file, before = place_of(folder, version) / MANIFEST, range(max(version, 1))
    remedy = f"remove {file.parent} to go on without this version" if version else REMEDY
    origin = {"version": range(version, version + 1), "parent": before} if version else {}
    found = read_sealed(file, {"made_from": origin, "files": {...: str}}, remedy)
    for name in found["files"]:
        if not re.fullmatch(_NAME, name.removeprefix(_SHARED if version else ""), re.ASCII):
            raise CdlError(f"{file}: files: invalid name {name!r:.100}; {remedy}")
    return found


def compare(folder: Path) -> dict[str, str]:
    """Compare a folder, and its current version, with their manifests.

    Returns:
        For every file of the manifests, for files without an entry that a student would read, and
        for the pointer: why it differs; empty if it is as recorded.

    Raises:
        CdlError: a manifest or the pointer is missing or damaged.
    """
    version = current_version(folder)
    found = {CURRENT: ""} if (folder / CURRENT).exists() else {}
    exported = read_manifest(folder)["files"]
    for one in sorted({0, version}):
        place, before = place_of(folder, one), f"{VERSIONS}/{one}/" if one else ""
        files = read_manifest(folder, one)["files"]
        for name, sha256 in files.items():
            shared = name.removeprefix(_SHARED)
            if shared == name:
                found[before + name] = _difference(place / name, sha256)
            elif exported.get(shared) != sha256:
                found[shared] = f"was damaged or changed: version {one} was made with another"
        unknown = [name for name in READ if name not in files and (place / name).exists()]
        found |= {before + name: "is not in the manifest" for name in unknown}
    return found


def check(folder: Path) -> None:
    """Refuse a folder that differs from its manifests, except for its card and program.

    A folder without a manifest, exported by cdl before 0.3, is not compared.
    """
    recorded = any((folder / name).exists() for name in (MANIFEST, CURRENT))
    for name, difference in compare(folder).items() if recorded else ():
        if difference and name not in EDITED:
            raise CdlError(f"{folder / name}: {difference}; {REMEDY}")


def _difference(file: Path, sha256: str) -> str:
    """Return how a file differs from its recorded sha256; empty if it does not."""
    try:
        found = sha256_of(file)
    except OSError as error:
        return f"cannot be read ({error.strerror})" if os.path.lexists(file) else "is missing"
    if found == sha256:
        return ""
    return f"was damaged or changed: its sha256 is {found[:12]}, the manifest has {sha256[:12]}"


def add_version(folder: Path, parent: int, write: Callable[[Path], None]) -> int:
    """Write a new version and make it the current one; return its number.

    Removed are versions that were undone and all but the last `KEPT`; no others.

    Args:
        folder: folder of the student.
        parent: version that it was made from.
        write: function that writes the files of the version into a folder.

    Raises:
        CdlError: the folder cannot be written, or another process changes the student.
    """
    with _changing(folder, parent) as unused:
        number = max([0, *_numbers(folder)]) + 1
        gone = [*unused, *(n for n in versions_of(folder)[KEPT - 1 :] if n)]
        made, place = folder / ".new", place_of(folder, number)  # of one process at a time
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
        try:
            write(made)
            _write_manifest(folder, made, number, parent)
            for file in made.iterdir():
                _flush(file)
            _point(folder, parent, [*unused, number])
            place.parent.mkdir(exist_ok=True)
            made.rename(place)
            _point(folder, number, gone)
        except (OSError, SafetensorError):
            shutil.rmtree(place, ignore_errors=True)
            raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
        for old in gone:
            shutil.rmtree(place_of(folder, old), ignore_errors=True)
    return number


def undo_version(folder: Path, version: int) -> int:
    """Return to the version before the current one; raise `CdlError` if it is not kept."""
    if not version:
        raise CdlError(f"{folder}: is as it was exported, so there is nothing to undo")
    with _changing(folder, version) as unused:
        _, *before = versions_of(folder)
        if not before:
            raise CdlError(f"{folder}: no version before {version} is kept")
        _point(folder, before[0], [*unused, version])
    return before[0]


def _point(folder: Path, version: int, unused: list[int]) -> None:
    """Make a version the current one, by one atomic replacement."""
    file = folder / f".{CURRENT}"
    try:
        file.write_text(pointer_to(folder, version, unused), encoding="ascii")
        _flush(file)
        os.replace(file, folder / CURRENT)
    finally:
        file.unlink(missing_ok=True)


def pointer_to(folder: Path, version: int, unused: Sequence[int] = ()) -> str:
    """Return the content of the pointer to a version; before 0.3 there was no manifest."""
    manifest = place_of(folder, version) / MANIFEST
    sha256 = sha256_of(manifest) if manifest.exists() else ""
    return sealed({"version": version, "manifest": sha256, "unused": [*unused]})


def _numbers(folder: Path) -> list[int]:
    """Return the numbers of the versions that are there."""
    entries = (folder / VERSIONS).iterdir() if (folder / VERSIONS).is_dir() else ()
    named = (entry for entry in entries if re.fullmatch("[1-9][0-9]{0,8}", entry.name))
    return [int(entry.name) for entry in named if entry.is_dir()]


@contextlib.contextmanager
def _changing(folder: Path, version: int) -> Iterator[list[int]]:
    """Let one process change a student whose current version is known; yield the unused ones.

    The kernel releases the lock when the process ends, also when it is killed.

    Raises:
        CdlError: another process changes or changed it, or the folder cannot be written.
    """
    import fcntl  # Windows lacks it, where a student only predicts

    busy = f"{folder}: another process changes or changed the student; repeat the command"
    try:
        with open(folder / MANIFEST, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found, unused = _pointer(folder)
            if found != version:
                raise CdlError(busy)
            yield unused
    except BlockingIOError as error:
        raise CdlError(busy) from error
    except (OSError, SafetensorError) as error:
        raise CdlError(
            f"{folder}: cannot be written ({getattr(error, 'strerror', error)}); free disk space "
            "or make the folder writable; the last version was kept"
        ) from error


def _write_manifest(folder: Path, made: Path, version: int, parent: int) -> None:
    """Write the manifest of a version, with the hashes of the shared files from version 0."""
    files = {file.name: sha256_of(file) for file in sorted(made.iterdir())}
    exported = read_manifest(folder)
    kinds = tuple(name for name in READ if name not in files or name == MEMORY)
    files |= {_SHARED + k: v for k, v in exported["files"].items() if k.startswith(kinds)}
    made_from = {**exported["made_from"], "version": version, "parent": parent}
    text = sealed({"made_from": made_from, "files": files})
    (made / MANIFEST).write_text(text, encoding="utf-8")


def _flush(file: Path) -> None:
    """Wait until the disk has the content of a file."""
    with open(file, "r+b") as opened:
        os.fsync(opened.fileno())
