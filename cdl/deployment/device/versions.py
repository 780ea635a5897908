"""Versions of a student in its folder: each is whole or absent, and one file names the current one.

The files in the folder itself are version 0, the exported one. Version `n` is the folder
`versions/n` with `classes.txt`, `memory.safetensors` and a `manifest.json` that also covers the
files of version 0 which it uses. The file `current` contains the number of the current version;
it is written last, by one atomic replacement. Manifests have the format of `cdl.runtime.artifacts`.
"""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cdl.deployment.device.memory import MEMORY
from cdl.runtime.errors import CdlError

CURRENT, VERSIONS = "current", "versions"
KEPT = 4  # the current version and those that `undo` can return to, besides version 0
_MANIFEST = "manifest.json"
_SHARED = ("model.onnx", "preprocessing.json", "tokenizer.json", MEMORY)
_EDITED = ("card.md", "student.py")  # files that no prediction reads
_REMEDY = "export the student again"


def current_version(folder: Path) -> int:
    """Return the number of the current version; raise `CdlError` if it is missing or damaged."""
    file = folder / CURRENT
    try:
        text = file.read_text(encoding="ascii").strip() if file.exists() else "0"
    except (OSError, ValueError) as error:
        raise CdlError(
            f"{file}: cannot be read ({error}); remove it to return to the export"
        ) from error
    if not text.isdecimal() or len(text) > 9:
        raise CdlError(
            f"{file}: invalid version {text!r:.50}; expected a number, such as 2; write the number "
            f"of a folder in {folder / VERSIONS}, or remove the file to return to the export"
        )
    if not place_of(folder, int(text)).is_dir():
        raise CdlError(
            f"{place_of(folder, int(text))}: is missing; remove {file} to return to the export"
        )
    return int(text)


def place_of(folder: Path, version: int) -> Path:
    """Return the folder with the files of a version."""
    return folder / VERSIONS / str(version) if version else folder


def parent_of(folder: Path, version: int) -> int:
    """Return the version that a version was made from; -1 for version 0."""
    if not version:
        return -1
    return int(_read(place_of(folder, version) / _MANIFEST)["made_from"]["parent"])


def check_version(folder: Path, version: int) -> None:
    """Compare the files of a version with its manifest; raise `CdlError` if one differs.

    A folder without a manifest, exported by cdl before 0.3, is not compared.
    """
    place = place_of(folder, version)
    if not version and not (place / _MANIFEST).exists():
        return
    try:
        files = dict(_read(place / _MANIFEST)["files"])
    except (KeyError, TypeError, ValueError) as error:
        raise CdlError(f"{place / _MANIFEST}: was damaged or changed; {_REMEDY}") from error
    for name, sha256 in files.items():
        try:
            same = name in _EDITED or _sha256(place / name) == sha256
        except OSError as error:
            raise CdlError(
                f"{place / name}: cannot be read ({error.strerror}); {_REMEDY}"
            ) from error
        if not same:
            raise CdlError(f"{place / name}: was damaged or changed; {_REMEDY}")


def add_version(folder: Path, parent: int, write: Callable[[Path], None]) -> int:
    """Write a new version and make it the current one; return its number.

    Args:
        folder: folder of the student.
        parent: version that it was made from.
        write: function that writes the files of the version into a folder.

    Raises:
        CdlError: the folder cannot be written, or another process changed the student meanwhile.
    """
    with _writing(folder):
        if current_version(folder) != parent:
            raise CdlError(f"{folder}: another process changed the student; repeat the command")
        number = max([0, *_numbers(folder)]) + 1
        made = folder / VERSIONS / f".{number}.{secrets.token_hex(8)}"
        made.mkdir(parents=True)
        try:
            write(made)
            _write_manifest(folder, made, number, parent)
            for file in made.iterdir():
                _flush(file)
            made.rename(place_of(folder, number))
        finally:
            shutil.rmtree(made, ignore_errors=True)
        switch(folder, number)
        _remove_others(folder, number)
    return number


def switch(folder: Path, version: int) -> None:
    """Make a version the current one, by one atomic replacement."""
    with _writing(folder):
        file = folder / VERSIONS / f".{CURRENT}.{secrets.token_hex(8)}"
        try:
            file.write_text(f"{version}\n", encoding="ascii")
            _flush(file)
            os.replace(file, folder / CURRENT)
        finally:
            file.unlink(missing_ok=True)


def _remove_others(folder: Path, version: int) -> None:
    """Remove what killed processes left, undone versions, and all but the last `KEPT` versions."""
    kept: list[int] = []
    while version > 0 and place_of(folder, version).is_dir() and len(kept) < KEPT:
        kept.append(version)
        version = parent_of(folder, version)
    for entry in (folder / VERSIONS).iterdir():
        if entry.is_dir() and entry.name not in map(str, kept):
            shutil.rmtree(entry, ignore_errors=True)
        elif not entry.is_dir():
            entry.unlink()


def _numbers(folder: Path) -> list[int]:
    entries = (folder / VERSIONS).iterdir() if (folder / VERSIONS).is_dir() else ()
    return [int(entry.name) for entry in entries if entry.name.isdecimal()]


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Report that the folder cannot be written."""
    try:
        yield
    except OSError as error:
        raise CdlError(
            f"{folder}: cannot be written ({error.strerror}); free disk space or make the folder "
            "writable; the last version was kept"
        ) from error


def _write_manifest(folder: Path, made: Path, version: int, parent: int) -> None:
    """Write the manifest of a version, with the hashes of the shared files from version 0."""
    files = {file.name: _sha256(file) for file in sorted(made.iterdir())}
    exported = _read(folder / _MANIFEST)
    shared = {f"../../{k}": v for k, v in exported["files"].items() if k.startswith(_SHARED)}
    made_from = {**exported["made_from"], "version": version, "parent": parent}
    content: dict[str, Any] = {"made_from": made_from, "files": {**files, **shared}}
    sealed = {**content, "_record": {"files": {}, "sha256": _seal(content)}}
    (made / _MANIFEST).write_text(json.dumps(sealed, indent=2) + "\n", encoding="utf-8")


def _read(file: Path) -> dict[str, Any]:
    """Return the content of a manifest; raise `CdlError` if it is missing or damaged."""
    try:
        content: dict[str, Any] = json.loads(file.read_bytes())
        seal = content.pop("_record")
        if seal != {"files": {}, "sha256": _seal(content)}:
            raise ValueError("its content does not match its hash")
    except (OSError, AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise CdlError(f"{file}: was damaged or changed ({error}); {_REMEDY}") from error
    return content


def _seal(content: dict[str, Any]) -> str:
    text = json.dumps([content, {}], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _sha256(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _flush(file: Path) -> None:
    """Wait until the disk has the content of a file."""
    with open(file, "r+b") as opened:
        os.fsync(opened.fileno())
