"""Read and validate classes and rows of Parquet files with encoded images or texts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cdl.data.modalities import DEFAULT
from cdl.data.sources import SPLITS
from cdl.data.sources.files import existing_folder, validate_file
from cdl.data.sources.items import Item, class_names
from cdl.data.sources.texts import MODALITY
from cdl.device.names import check_class_name
from cdl.device.reading import encode
from cdl.runtime.errors import CdlError

if TYPE_CHECKING:
    import numpy as np
    from pyarrow import Table


class Columns(NamedTuple):
    """Names of the columns: encoded image or text, label from 0, and two optional ones."""

    image: str
    label: str
    class_name: str | None
    file: str | None


class Row(NamedTuple):
    """An item as stored: bytes or text, label, and the original path if there is a column."""

    image: Any
    label: int
    file: str | None


def tables_of(path: str, train: str, test: str) -> dict[str, list[Path]]:
    """Return the Parquet files of each split; raise `CdlError` if a split has none."""
    found, folder = {}, existing_folder(path)
    for split, pattern in zip(SPLITS, (train, test), strict=True):
        found[split] = sorted(folder.glob(pattern))
        if not found[split]:
            raise CdlError(f"no {split} file matches {pattern!r} in the folder {path!r}")
        for file in found[split]:
            validate_file(file)
    return found


def read_classes(
    path: str, files: Mapping[str, Sequence[Path]], columns: Columns
) -> tuple[str, ...]:
    """Return class names in label order; no image is read.

    Args:
        path: folder of the files, for error messages.
        files: files of each split.
        columns: without `class_name`, a label is its own name.

    Raises:
        CdlError: a file cannot be read; a label is not an integer from 0; a label has two names,
            or two labels have the same name.
    """
    names: dict[int, str] = {}
    for part in (part for parts in files.values() for part in parts):
        labels, given = _labels_and_names(part, columns)
        for label in labels:
            if type(label) is not int or label < 0:
                raise CdlError(
                    f"{part}: invalid label {label!r} in column {columns.label!r}; expected "
                    "integers from 0"
                )
        for name in given:
            if name is not None and not isinstance(name, str):  # a list has no hash
                check_class_name(name, f"{part}: {columns.class_name}")
        for label, name in set(zip(labels, given, strict=True)):
            if names.setdefault(label, name) != name:
                raise CdlError(
                    f"{part}: label {label} is named {name!r} here and {names[label]!r} elsewhere"
                )
    return class_names(names, path)


def read_labels(part: Path, columns: Columns) -> list[int]:
    """Return the labels of a file's rows; no image is read."""
    return _labels_and_names(part, columns)[0]


def read_rows(part: Path, columns: Columns) -> Iterator[Row]:
    """Yield the rows of a file; raise `CdlError` if an original path is missing."""
    wanted = [name for name in (columns.image, columns.label, columns.file) if name]
    for i, row in enumerate(_read_columns(part, wanted).to_pylist()):
        image = row[columns.image]
        name = row[columns.file] if columns.file else None
        if columns.file and not isinstance(name, str):
            raise CdlError(
                f"{part}: column {columns.file!r} contains {name!r} in row {i}; expected a path"
            )
        yield Row(image["bytes"] if isinstance(image, dict) else image, row[columns.label], name)


def items_of(
    path: str, tables: Mapping[str, Sequence[Path]], columns: Columns, kind: str = DEFAULT
) -> Iterator[Item]:
    """Yield the items of each split's files in the folder `path`, of the modality `kind`."""
    read = _reader(kind)
    for split, parts in tables.items():
        for part in parts:
            for i, row in enumerate(read_rows(part, columns)):
                name = row.file or f"{part.relative_to(path)}[{i}]"
                yield Item(split, row.label, name, partial(read, row.image, name))


def kind_of(options: Mapping[str, Any]) -> str:
    """Return the modality of a table: that of its column `text`, if it has one, or images."""
    return DEFAULT if options.get("text") is None else MODALITY


def _reader(kind: str) -> "Callable[[Any, str], np.ndarray]":
    """Return the function that reads an item of a modality from its value and its name."""
    if kind == MODALITY:
        return encode
    from cdl.device.decoding import decode

    return decode


def _labels_and_names(part: Path, columns: Columns) -> tuple[list[Any], list[Any]]:
    table = _read_columns(part, [name for name in (columns.label, columns.class_name) if name])
    labels = table[columns.label].to_pylist()
    names = table[columns.class_name].to_pylist() if columns.class_name else map(str, labels)
    return labels, list(names)


def _read_columns(part: Path, columns: list[str]) -> "Table":
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        known = pq.read_schema(part).names
        missing = [column for column in columns if column not in known]
        if missing:
            raise CdlError(f"{part} has no column {missing[0]!r}; it has {known}")
        return pq.read_table(part, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise CdlError(f"{part} cannot be read as Parquet ({error})") from error
