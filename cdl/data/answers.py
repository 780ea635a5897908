"""Answers of a teacher that was made elsewhere: a CSV or Parquet file. Does not import torch.

The file has a row for each item: its `name`, as in the index of the packed data, and a number for
each class, in a column with the name of the class. A column `path` is not read.

Numbers are probabilities, or logits if they are said to be logits. In a row of probabilities some
cells may be empty, as for the most likely classes only: they share the rest evenly. A row without
any number is no answer.
"""

import csv
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from cdl.runtime.errors import CdlError, first_line

NAME, PATH = "name", "path"  # columns that are not classes
FLOOR = 1e-6  # smallest probability before its logarithm
LARGEST = 2 << 30  # bytes of a file, as a table all of which is read
_SLACK = 1e-3  # by which a sum of rounded probabilities may differ from one


@dataclass(frozen=True)
class AnswerTable:
    """Answers by item and class.

    Attributes:
        path: of the file, for messages.
        rows: row of `logits` by name of the item.
        classes: names of the classes that are answered for.
        logits: `[n, C]` float32, logits or logarithms of probabilities.
    """

    path: str
    rows: dict[str, int]
    classes: tuple[str, ...]
    logits: np.ndarray

    def check_classes(self, known: Sequence[str]) -> None:
        """Raise `CdlError` if a class that is answered for is not one of the data's."""
        unknown = next((name for name in self.classes if name not in set(known)), None)
        if unknown is not None:
            some = ", ".join(map(repr, known[:5])) + (", ..." if len(known) > 5 else "")
            raise CdlError(
                f"{self.path}: the column {unknown!r} is not a class of the data ({some}); "
                f"expected {NAME}, {PATH} and names of classes"
            )

    def of(self, names: Sequence[str], classes: Sequence[str]) -> np.ndarray:
        """Return the logits `[n, C]` of items and classes, in the given orders; NaN: no answer.

        Raises:
            CdlError: a class has no column.
        """
        rows = np.array([self.rows.get(name, -1) for name in names])
        chosen: np.ndarray = self.logits[rows][:, self.columns(classes)]
        chosen[rows < 0] = np.nan
        return chosen

    def columns(self, classes: Sequence[str]) -> list[int]:
        """Return the columns of classes; raise `CdlError` if one has none."""
        columns = {name: i for i, name in enumerate(self.classes)}
        absent = [name for name in classes if name not in columns]
        if absent:
            raise CdlError(
                f"{self.path}: has no column {absent[0]!r}; expected a column for each of the "
                f"{len(classes)} classes that are compared, of which {len(absent)} have none"
            )
        return [columns[name] for name in classes]

    def check_any(self, names: Sequence[str]) -> None:
        """Raise `CdlError` if none of the items has an answer, as with other names."""
        if names and not any(name in self.rows for name in names):
            raise CdlError(
                f"{self.path}: answers for {next(iter(self.rows))!r}, which is not the {NAME} of a "
                f"training item, and for none that is; expected names such as {names[0]!r}"
            )

    def check_items(self, names: Iterable[str]) -> None:
        """Raise `CdlError` if an item has no answer."""
        names = list(names)
        missing = self.missing(names)
        if missing:
            raise CdlError(
                f"{self.path}: has no answer for {missing[0]!r}; expected one for each of the "
                f"{len(names)} items, of which {len(missing)} have none; or set missing: unlabelled"
            )

    def missing(self, names: Iterable[str]) -> list[str]:
        """Return the items without an answer."""
        return [name for name in names if name not in self.rows]


def read_answers(path: str | Path, values: str = "probabilities") -> AnswerTable:
    """Read and check a file of answers.

    Args:
        path: a CSV file in UTF-8, or a Parquet file, whose name ends in .parquet.
        values: `probabilities` or `logits`.

    Raises:
        CdlError: the file cannot be read, a name is missing or there twice, or a value is not a
            number, not finite, or not part of a distribution.
    """
    table = _table(path)
    _check_columns(path, table.column_names)
    names = _names(path, table)
    classes = tuple(name for name in table.column_names if name not in (NAME, PATH))
    numbers = np.stack([_numbers(path, table, name, names) for name in classes], 1)
    given = ~np.isnan(numbers)
    answered = given.any(1)
    if not answered.any():
        raise CdlError(f"{path}: has no answer; fill in a number for each item and class")
    names, numbers = [n for n, own in zip(names, answered, strict=True) if own], numbers[answered]
    given = given[answered]
    if values == "probabilities":
        numbers = _log_probabilities(path, names, numbers, given)
    elif not given.all():
        row, column = np.argwhere(~given)[0]
        raise CdlError(
            f"{path}: {names[row]!r} has no logit of {classes[column]!r}; expected all classes, or "
            "probabilities, of which some may be empty"
        )
    rows = {name: row for row, name in enumerate(names)}
    return AnswerTable(str(path), rows, classes, numbers.astype(np.float32))


def write_items(path: str | Path, items: Iterable[tuple[str, str]], classes: Sequence[str]) -> int:
    """Write the list of items to answer, in the form that `read_answers` reads.

    Args:
        path: CSV file to write.
        items: name and path of each item.
        classes: names of the classes, each of which gets an empty column.

    Returns:
        The number of items.

    Raises:
        CdlError: a class has the name of another column, or the file exists.
    """
    taken = {NAME, PATH} & set(classes)
    if taken:
        raise CdlError(f"{path}: a class is named {min(taken)!r}, as another column; rename it")
    count = 0
    try:
        with open(path, "x", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([NAME, PATH, *classes])
            for name, found in items:
                writer.writerow([name, found, *[""] * len(classes)])
                count += 1
    except OSError as error:
        raise CdlError(f"{path}: cannot be written ({error.strerror})") from error
    return count


def _table(path: str | Path) -> pa.Table:
    """Return the file as a table; all columns of a CSV file are text."""
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):  # reading a device or a pipe might never end
            raise CdlError(f"{path}: is not a regular file; expected a CSV or Parquet file")
        if found.st_size > LARGEST:
            raise CdlError(f"{path}: is larger than {LARGEST >> 30} GiB; expected a smaller file")
        if str(path).endswith(".parquet"):
            return parquet.ParquetFile(path).read()
        with open(path, encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
        options = arrow_csv.ConvertOptions(
            column_types={name: pa.string() for name in header},
            null_values=[""],
            strings_can_be_null=True,
        )
        parsing = arrow_csv.ParseOptions(newlines_in_values=True)
        return arrow_csv.read_csv(path, parse_options=parsing, convert_options=options)
    except (pa.ArrowException, csv.Error, UnicodeDecodeError) as error:
        problem = f"{path}: is neither CSV in UTF-8 nor .parquet ({first_line(error)})"
        raise CdlError(problem) from error
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise CdlError(
            f"{path}: cannot be read ({reason}); expected a CSV or Parquet file"
        ) from error


def _check_columns(path: str | Path, columns: Sequence[str]) -> None:
    """Raise `CdlError` unless there are distinct columns: the name, and two classes or more."""
    if NAME not in columns:
        raise CdlError(f"{path}: has no column {NAME!r}; `cdl answers` writes a list to fill in")
    twice = next((name for name in columns if columns.count(name) > 1), None)
    if twice is not None:
        raise CdlError(f"{path}: has two columns {twice!r}; expected one for each class")
    if len(set(columns) - {NAME, PATH}) < 2:
        raise CdlError(f"{path}: answers for fewer than two classes; expected a column for each")


def _names(path: str | Path, table: pa.Table) -> list[str]:
    """Return the names of the items, of which none is missing or there twice."""
    column = table[NAME]
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise CdlError(f"{path}: the column {NAME!r} has {column.type} in it; expected text")
    names: list[str] = column.to_pylist()
    if not all(names):
        raise CdlError(f"{path}: row {[*map(bool, names)].index(False) + 1} has no {NAME}")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise CdlError(f"{path}: {name!r} is there twice; expected one row for each item")
        seen.add(name)
    return names


def _numbers(path: str | Path, table: pa.Table, name: str, items: Sequence[str]) -> np.ndarray:
    """Return a column of numbers, NaN where a cell is empty."""
    column = table[name]
    try:
        numbers = pc.cast(column, pa.float64()).combine_chunks()
    except pa.ArrowException as error:
        cells = zip(items, column.to_pylist(), strict=True)
        item, cell = next((i, c) for i, c in cells if c is not None and not _is_number(c))
        raise CdlError(
            f"{path}: {item!r} has {str(cell)[:40]!r} for {name!r}; expected a number"
        ) from error
    empty = numbers.is_null().to_numpy(zero_copy_only=False)
    found: np.ndarray = numbers.to_numpy(zero_copy_only=False).astype(np.float64)
    bad = ~np.isfinite(found) & ~empty
    if bad.any():
        row = int(bad.argmax())
        raise CdlError(
            f"{path}: {items[row]!r} has {found[row]} for {name!r}; expected a finite number, or "
            "an empty cell"
        )
    return found


def _is_number(cell: object) -> bool:
    try:
        pc.cast(pa.array([cell]), pa.float64())
    except pa.ArrowException:
        return False
    return True


def _log_probabilities(
    path: str | Path, names: Sequence[str], numbers: np.ndarray, given: np.ndarray
) -> np.ndarray:
    """Return logarithms of probabilities `[n, C]`; empty cells share the rest of a row evenly."""
    known = np.where(given, numbers, 0.0)
    outside = np.any((known < 0) | (known > 1 + _SLACK), axis=1)
    totals, full = known.sum(1), given.all(1)
    wrong = outside | (totals > 1 + _SLACK) | (full & (totals < 1 - _SLACK))
    if wrong.any():
        row = int(wrong.argmax())
        what = "values outside 0 to 1" if outside[row] else f"a sum of {totals[row]:.4g}"
        raise CdlError(
            f"{path}: {names[row]!r} has {what}; expected probabilities with the sum 1, or "
            "values: logits beside answers"
        )
    rest = np.maximum(1 - totals, 0) / np.maximum((~given).sum(1), 1)
    return np.log(np.maximum(np.where(given, numbers, rest[:, None]), FLOOR))
