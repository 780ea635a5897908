"""Files that are whole or absent: atomic writes, safetensors beside JSON, fingerprints on load.

An artifact is a pair `NAME.safetensors` and `NAME.json`. The JSON carries the sha256 of the
tensor file and says what made it; loading checks both, so a truncated, swapped or foreign file
is refused with a sentence. Nothing is ever pickled.
"""

import contextlib
import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from cdl.runtime.errors import CdlError

if TYPE_CHECKING:  # tables and figures read JSON only and never wait for torch
    from torch import Tensor

_NOT_WRITABLE = [
    os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
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
        raw = tensor.reshape(-1).view(torch.uint8)  # numpy knows no bfloat16
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(raw.numpy().tobytes())
    return digest.hexdigest()


def fingerprint_file(path: str | Path) -> str:
    """Return the sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to `path` if the block succeeds.

    Whoever writes the same path at the same time has another temporary one, so that `path` is
    always wholly one of theirs.

    Raises:
        CdlError: the disk is full, or the folder cannot be written.
    """
    path = Path(path)
    # a name of its own even among threads, and hosts that share the folder and have equal pids
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = temporary.stat().st_mode  # the umask's; safetensors' writer leaves 0600
        yield temporary
        temporary.chmod(mode)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        reason = next((text for text in _NOT_WRITABLE if text in str(error)), None)
        if reason is None:
            raise
        raise CdlError(
            f"{path} cannot be written: {reason}; make room or the folder writable, and run "
            "again: what is finished stays"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON (indented, NaN refused) atomically."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read JSON; raise `CdlError` if the file is missing or no JSON."""
    try:
        return json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise CdlError(f"{path} cannot be read ({error}); delete it and run again") from error


def save(path: str | Path, tensors: Mapping[str, "Tensor"], metadata: Mapping[str, Any]) -> None:
    """Write tensors to `path` (.safetensors) and metadata with their sha256 to its .json."""
    from safetensors.torch import save_file

    path = Path(path)
    with replacing(path) as temporary:
        save_file({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, temporary)
        sha256 = fingerprint_file(temporary)
        write_json(path.with_suffix(".json"), {**metadata, "sha256": sha256})


def load(path: str | Path, **expected: Any) -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    """Read an artifact and check it.

    Args:
        path: the .safetensors file; its .json lies beside it.
        expected: metadata entries that must have exactly these values.

    Raises:
        CdlError: a file is missing or damaged, or an expected entry differs.
    """
    from safetensors.torch import load_file

    path = Path(path)
    metadata = read_json(path.with_suffix(".json"))
    if not isinstance(metadata, dict):
        raise CdlError(f"{path.with_suffix('.json')} holds no record; delete it and run again")
    try:
        sha256, tensors = fingerprint_file(path), load_file(path)
    except (OSError, SafetensorError) as error:
        raise CdlError(f"{path} cannot be read ({error}); delete it and run again") from error
    if sha256 != metadata.get("sha256"):
        raise CdlError(
            f"{path} has sha256 {sha256[:12]} but {path.with_suffix('.json').name} records "
            f"{str(metadata.get('sha256'))[:12]}: one of them was changed; delete both, run again"
        )
    check_provenance(path, metadata, expected)
    return tensors, metadata


def check_provenance(
    path: str | Path, metadata: Mapping[str, Any], expected: Mapping[str, Any]
) -> None:
    """Raise `CdlError` naming the first entry, at any depth, that differs from what is expected."""
    for key, needed in _leaves(dict(expected)).items():
        found = _leaves({k: metadata.get(k) for k in expected}).get(key)
        if found != needed:
            raise CdlError(
                f"{path} does not fit: its {key} is {json.dumps(found)}, "
                f"needed is {json.dumps(needed)}; delete it and run again"
            )


def _leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested dicts to dotted keys."""
    if not isinstance(value, dict):
        return {prefix: value}
    leaves: dict[str, Any] = {}
    for key, inner in value.items():
        leaves |= _leaves(inner, f"{prefix}.{key}" if prefix else str(key))
    return leaves
