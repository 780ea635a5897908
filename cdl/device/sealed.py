"""JSON from outside: sealed files, and the shape that their content must have.

A sealed file has the format of `cdl.runtime.artifacts`: the key `_record` contains the sha256 of
all other entries. An edited file can be sealed again, so the content is checked as well.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from cdl.device.errors import CdlError

REMEDY = "export the student again"


def check_json(value: Any, shape: Any, name: str = "") -> None:
    """Raise `ValueError` with the name of a value unless JSON from outside has a shape.

    Args:
        value: as `json` reads it.
        shape: a type; a `range` of integers; a tuple of words, one of which is expected, or of the
            smallest and the largest number; a list with the shape of all elements; a dictionary
            with the shapes of some entries, or under `...` that of all.
        name: of the value, for the message.
    """
    kind = type(shape) if isinstance(shape, dict | list) else shape
    if isinstance(shape, range):
        good = type(value) is int and value in shape
    elif isinstance(shape, tuple) and isinstance(shape[0], float):
        good = type(value) in (int, float) and shape[0] <= value <= shape[1]
    else:
        good = value in shape if isinstance(shape, tuple) else type(value) is kind
    if not good:
        expected = kind.__name__ if isinstance(kind, type) else kind
        raise ValueError(f"{name or 'content'}: invalid value {value!r:.50}; expected {expected}")
    if kind is list:
        value, shape = dict(enumerate(value)), {...: shape[0]}
    if isinstance(shape, dict):
        for key in value if ... in shape else shape:
            check_json(value.get(key), shape.get(..., shape.get(key)), f"{name}.{key}".strip("."))


def read_sealed(file: Path, shape: Any, remedy: str = REMEDY) -> dict[str, Any]:
    """Return the content of a sealed file; raise `CdlError` if it is missing or damaged."""
    try:
        content: dict[str, Any] = json.loads(file.read_bytes())
        seal = content.pop("_record")
        if seal != {"files": {}, "sha256": _seal(content)}:
            raise ValueError("its content does not match its hash")
        check_json(content, shape)
    except (OSError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        missing = isinstance(error, FileNotFoundError)
        why = "is missing" if missing else f"was damaged or changed ({error})"
        raise CdlError(f"{file}: {why}; {remedy}") from error
    return content


def sealed(content: dict[str, Any]) -> str:
    """Return the text of a sealed file."""
    record = {"files": {}, "sha256": _seal(content)}
    return json.dumps({**content, "_record": record}, indent=2) + "\n"


def sha256_of(file: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _seal(content: dict[str, Any]) -> str:
    text = json.dumps([content, {}], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
