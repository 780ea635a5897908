"""Read what this process did not write: JSON of files, requests and downloads; optional packages.

Every room reads such JSON with `json_object`. It is stricter than Python's reader, which accepts
`NaN`, turns `1e999` into infinity, and keeps the last of two equal keys.
"""

import contextlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from cdl.runtime.errors import CdlError, first_line

_SHOWN = 200  # characters of a reason


def json_object(
    source: Path | str | bytes,
    name: str | Path | None = None,
    *,
    schema: Mapping[str, Any] | None = None,
    remedy: str = "",
) -> dict[str, Any]:
    """Return a JSON object from outside.

    All its numbers are finite and all its keys are different, at any depth. Text may contain lone
    surrogates, with which Python represents file names that are not UTF-8.

    Args:
        source: a file as `Path`, or the JSON itself as text or bytes.
        name: name of the source in messages; by default the path of the file.
        schema: JSON schema that the object must fulfil; None: any object.
        remedy: end of the message, such as `export it again`.

    Raises:
        CdlError: the file cannot be read, its content is not a JSON object in UTF-8, or the object
            does not fulfil the schema; the message has the name, the field and its value.
    """
    label = name or (source if isinstance(source, Path) else "JSON")
    end = f"; {remedy}" if remedy else ""
    try:
        text = source.read_bytes() if isinstance(source, Path) else source
        text = text.decode() if isinstance(text, bytes) else text
        found = json.loads(
            text, parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_unique
        )
        if not isinstance(found, dict):
            raise ValueError(f"expected a JSON object, found {_shortened(text)!r}")
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CdlError(f"{label} cannot be read ({_shortened(reason)}){end}") from error
    if schema is not None and (wrong := _mismatch(found, schema)):
        raise CdlError(f"{label}: {wrong}{end}")
    return found


def _mismatch(found: Any, schema: Mapping[str, Any]) -> str | None:
    """Return why a value does not fulfil a schema; None if it does."""
    import jsonschema  # slow to import, and most objects have no schema

    errors = jsonschema.Draft202012Validator(schema).iter_errors(found)
    error = jsonschema.exceptions.best_match(errors)
    if error is None:
        return None
    field = ".".join(map(str, error.absolute_path))
    return _shortened(f"invalid {field}: {error.message}" if field else error.message)


def _shortened(reason: object) -> str:
    text = " ".join(str(reason).split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    if math.isinf(value := float(text)):
        raise ValueError(f"{text} is too large")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, n in Counter(key for key, _ in pairs).items() if n > 1)
        raise ValueError(f"the key {twice!r} is there twice")
    return found


@contextlib.contextmanager
def one_sentence(path: object, library: str, done: str = "opened") -> Iterator[None]:
    """Turn the errors of a library about what it reads into a `CdlError`.

    Args:
        path: what it reads.
        library: name of the library.
        done: what it does with it.
    """
    try:
        yield
    except CdlError:
        raise
    except Exception as error:  # libraries raise errors of any type on invalid values
        problem = f"{path}: cannot be {done} by {library} ({first_line(error)})"
        raise CdlError(problem) from error


def imported(name: str, what: str, install: str) -> Any:
    """Import an optional package; raise `CdlError` with the command that installs it."""
    try:
        return import_module(name)
    except ImportError as error:
        raise CdlError(
            f"{what} need the package {name}, which is not installed: {install}"
        ) from error
