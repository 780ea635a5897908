"""Write files atomically, and verify their checksums when they are read.

A record is a JSON file. Its key `_record` contains the sha256 of the other entries, and the sha256
of further files that belong to the record: tables, predictions, loss curves. An artifact is a pair
`NAME.safetensors` and `NAME.json`; its record contains the sha256 of the tensor file and describes
how the artifact was made. Reading verifies all of these, so that a truncated, exchanged or
corrupted file raises an error with a clear message. Nothing is pickled.
"""

import contextlib
import errno
import glob
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from cdl.runtime.errors import CdlError
from cdl.runtime.outside import json_object

if TYPE_CHECKING:  # jobs that only read JSON must not import torch
    from torch import Tensor

_SEAL = "_record"
_NOT_WRITABLE = [
    os.strerror(number)
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)
]


def fingerprint(value: Any) -> str:
    """Return the sha256 of a JSON-able value, independent of the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint_tensors(tensors: Mapping[str, "Tensor"]) -> str:
    """Return the sha256 over names, dtypes, shapes and bytes of tensors."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        raw = tensor.reshape(-1).view(torch.uint8)  # numpy has no bfloat16
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(raw.numpy().tobytes())
    return digest.hexdigest()


def fingerprint_file(path: str | Path) -> str:
    """Return the sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path that is renamed to `path` if the block succeeds.

    The temporary file is in the same folder. Concurrent writers of the same path use different
    temporary files, so that `path` always has the complete content of one of them.

    Raises:
        CdlError: the disk is full, or the folder is not writable.
    """
    path = Path(path)
    # a random name is unique also among threads, and among hosts that share the folder
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = temporary.stat().st_mode  # follows the umask; safetensors would write 0600
        yield temporary
        temporary.chmod(mode)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        reason = next((text for text in _NOT_WRITABLE if text in str(error)), None)
        if reason is None:
            raise
        raise CdlError(
            f"{path} cannot be written: {reason}; free disk space or make the folder writable, "
            "then run again (finished jobs are kept)"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_rest(path: str | Path) -> None:
    """Remove the temporary files of killed writers of a path; no other process may write it."""
    path = Path(path)
    for rest in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if re.fullmatch(r"[0-9a-f]{16}", rest.name.rpartition(".")[2]):
            rest.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text)


def write_json(
    path: str | Path, value: Mapping[str, Any], files: Iterable[str | Path] = ()
) -> None:
    """Write a record atomically, as indented JSON.

    Args:
        path: the JSON file.
        value: content of the record.
        files: existing files whose sha256 the record contains, by their path relative to `path`.

    Raises:
        ValueError: the content has a number that is not finite.
    """
    path = Path(path)
    content = json.loads(json.dumps(value, allow_nan=False))  # as a reader will get it
    hashes = {_relative(path, file): fingerprint_file(file) for file in files}
    sealed = {**content, _SEAL: {"files": hashes, "sha256": fingerprint([content, hashes])}}
    write_text(path, json.dumps(sealed, indent=2) + "\n")


def read_json(path: str | Path) -> dict[str, Any]:
    """Return the content of a record.

    Raises:
        CdlError: the record is missing or damaged, or has no hash of its content.
    """
    return _verified_record(path)[0]


def check_files(record: str | Path, *files: str | Path) -> None:
    """Raise `CdlError` unless files exist and have the sha256 that a record contains."""
    hashes = _verified_record(record)[1]
    for file in files:
        try:
            found = fingerprint_file(file)
        except OSError as error:
            raise CdlError(f"{file} cannot be read ({error.strerror}); run again") from error
        expected = hashes.get(_relative(Path(record), file))
        if found != expected:
            raise CdlError(
                f"{file} has sha256 {found[:12]}, but {record} records {str(expected)[:12]}: one "
                "of them was changed; delete both and run again"
            )


def _relative(record: Path, file: str | Path) -> str:
    return os.path.relpath(file, record.parent)


def _verified_record(path: str | Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a record's content and the sha256 of its files by relative path."""
    try:
        content = json_object(Path(path), remedy="delete it and run again")
        seal = content.pop(_SEAL, None)
        intact = seal is None or seal["sha256"] == fingerprint([content, seal["files"]])
    except (KeyError, TypeError) as error:
        raise CdlError(f"{path} cannot be read ({error}); delete it and run again") from error
    if seal is None:
        raise CdlError(
            f"{path} has no hash of its content: it was written by an earlier version of cdl, or "
            "changed; delete it and run again"
        )
    if not intact:
        raise CdlError(
            f"{path} was damaged or changed: its content does not match its hash; delete it and "
            "run again"
        )
    return content, seal["files"]


def save(
    path: str | Path,
    tensors: Mapping[str, "Tensor"],
    metadata: Mapping[str, Any],
    files: Iterable[str | Path] = (),
) -> None:
    """Write tensors to a .safetensors file and metadata to its .json record.

    Args:
        path: the tensor file.
        tensors: by name.
        metadata: further content of the record.
        files: further existing files whose sha256 the record contains.
    """
    from safetensors.torch import save_file

    path = Path(path)
    with replacing(path) as temporary:
        save_file({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, temporary)
        sha256 = fingerprint_file(temporary)
        write_json(path.with_suffix(".json"), {**metadata, "sha256": sha256}, files)


def load(path: str | Path, **expected: Any) -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    """Read an artifact and verify it.

    Args:
        path: the .safetensors file; the .json file is in the same folder.
        expected: metadata entries that must have exactly these values.

    Returns:
        The tensors by name, and the metadata.

    Raises:
        CdlError: a file is missing or damaged, or an expected entry differs.
    """
    from safetensors.torch import load_file

    metadata = check_artifact(path)
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CdlError(f"{path} cannot be read ({error}); delete it and run again") from error
    check_provenance(path, metadata, expected)
    return tensors, metadata


def check_artifact(path: str | Path) -> dict[str, Any]:
    """Return an artifact's metadata; raise `CdlError` if a file is damaged."""
    path = Path(path)
    metadata = read_json(path.with_suffix(".json"))
    try:
        sha256 = fingerprint_file(path)
    except OSError as error:
        raise CdlError(f"{path} cannot be read ({error}); delete it and run again") from error
    if sha256 != metadata.get("sha256"):
        raise CdlError(
            f"{path} has sha256 {sha256[:12]} but {path.with_suffix('.json').name} records "
            f"{str(metadata.get('sha256'))[:12]}: one of them was changed; delete both, run again"
        )
    return metadata


def check_provenance(
    path: str | Path, metadata: Mapping[str, Any], expected: Mapping[str, Any]
) -> None:
    """Raise `CdlError` with the first entry, at any depth, that is not as expected."""
    difference = first_difference({key: metadata.get(key) for key in expected}, expected)
    if difference is not None:
        key, found, needed = difference
        raise CdlError(
            f"{path} was made with {key} = {found}, expected {needed}; delete it and run again"
        )


def first_difference(
    found: Mapping[str, Any], needed: Mapping[str, Any]
) -> tuple[str, str, str] | None:
    """Return the first entry, at any depth, in which `found` and `needed` differ.

    Returns:
        The dotted key and both values as JSON (`null` for a missing entry), or None if all entries
        are equal.
    """
    return next(differences(found, needed), None)


def differences(
    found: Mapping[str, Any], needed: Mapping[str, Any]
) -> Iterator[tuple[str, str, str]]:
    """Yield every entry, at any depth, as `first_difference` returns the first one."""
    present, wanted = _leaves(dict(found)), _leaves(dict(needed))
    for key in dict.fromkeys([*wanted, *present]):
        if present.get(key) != wanted.get(key):
            yield key, json.dumps(present.get(key)), json.dumps(wanted.get(key))


def _leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested dicts to dotted keys."""
    if not isinstance(value, dict):
        return {prefix: value}
    leaves: dict[str, Any] = {}
    for key, inner in value.items():
        leaves |= _leaves(inner, f"{prefix}.{key}" if prefix else str(key))
    return leaves
