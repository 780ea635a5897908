"""Read texts: rows of CSV files, and the bytes of a valid text. Imports numpy when it is used."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cdl.device.errors import CdlError, Unreadable
from cdl.device.names import check_class_name

if TYPE_CHECKING:
    import numpy as np

_LARGEST = 2**24  # characters of a field


def rows_of(
    file: Path, text: str, label: str, delimiter: str = ","
) -> Iterator[tuple[str, str, str]]:
    """Yield text, class name and place of each row of a CSV file with a header.

    Raises:
        CdlError: the file cannot be read, lacks a column, or has an invalid class name or none.
    """
    csv.field_size_limit(_LARGEST)
    begin = 1
    try:
        with open(file, newline="", encoding="utf-8-sig") as lines:
            rows = csv.DictReader(lines, delimiter=delimiter, strict=True)
            known = rows.fieldnames or []
            for column in (text, label):
                if column not in known:
                    raise CdlError(
                        f"{file} has no column {column!r}; with {delimiter!r} between columns it "
                        f"has {str(list(known)):.200}"
                    )
                if known.count(column) > 1:
                    raise CdlError(
                        f"{file} has {known.count(column)} columns {column!r}; expected one: "
                        "rename or remove the others"
                    )
            begin = rows.line_num + 1
            for row in rows:
                name, place = (row[label] or "").strip(), f"{file}: line {begin}"
                begin = rows.line_num + 1
                if not name:
                    raise CdlError(f"{place} has no {label!r}; fill it in, or remove the row")
                yield row[text] or "", check_class_name(name, place), place
    except UnicodeDecodeError as error:
        raise CdlError(f"{file}: {_not_utf8(file)}; save the file as UTF-8") from error
    except OSError as error:
        raise CdlError(f"{file}: cannot be read ({error.strerror})") from error
    except csv.Error as error:
        problem = f"{file}: the row that begins in line {begin} is not valid CSV ({error})"
        raise CdlError(problem) from error


def _not_utf8(file: Path) -> str:
    """Describe the first line of a file that is not valid UTF-8."""
    for n, line in enumerate(file.read_bytes().splitlines(), start=1):
        try:
            line.decode()
        except UnicodeDecodeError as error:
            return f"line {n} is not UTF-8, at the byte 0x{line[error.start]:02x}"
    raise AssertionError("the file was not valid before")


def encode(text: object, name: str) -> "np.ndarray":
    """Return a text as it is packed: its UTF-8 bytes `[1, n, 1]`, without space around it.

    Raises:
        Unreadable: it is not text, is blank, or contains NUL or half of a surrogate pair.
    """
    import numpy as np

    if not isinstance(text, str) or not text.strip():
        found = "no text" if text is None else f"{text!r:.50}"
        raise Unreadable(f"{name} contains {found}; expected a text that is not blank")
    try:
        raw = text.strip().encode()
    except UnicodeEncodeError as error:
        problem = f"{name} is not valid Unicode ({error.reason}): {text!r:.50}"
        raise Unreadable(problem) from error
    if b"\0" in raw:
        raise Unreadable(f"{name} contains a NUL character; remove it")
    return np.frombuffer(raw, np.uint8).reshape(1, -1, 1)
