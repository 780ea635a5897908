"""The cells of the tables with the names that the tables show."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cdl.inventory.naming import Cell
from cdl.layout import RESULTS, ResultsFolder, RunFiles
from cdl.reporting.names import distiller_of, labels_shown, named, names, names_of
from cdl.reporting.tables import read
from cdl.runtime.errors import CdlError


class Row(NamedTuple):
    """A row of a table of runs, the table, and the JSON file with its protocols."""

    values: Mapping[Hashable, Any]
    table: Path
    protocols: Path


def rows_of(results: ResultsFolder) -> tuple[dict[str, Row], list[str]]:
    """Return the row of each run in the tables, by its folder there; and errors of damaged tables.

    If a run is in several tables, its row is that of the complete one.
    """
    rows: dict[str, Row] = {}
    damaged: list[str] = []
    for table, protocols in results.tables():
        try:
            runs = read(table, protocols)
        except CdlError as error:
            damaged.append(str(error))
            continue
        runs["learner"] = names(runs)
        records = named(runs).to_dict("records")
        rows |= {row["run"]: Row(row, table, protocols) for row in records}
    return rows, damaged


def cells_of(results: ResultsFolder, rows: Mapping[str, Row]) -> Iterator[Cell]:
    """Yield all cells with finished runs, also those that are in no table or a damaged one.

    Args:
        results: folder of the results.
        rows: rows of its tables by the folder of the run in `results`.
    """
    for folder, runs in results.finished().items():
        row = next((rows[r.folder].values for r in runs.values() if r.folder in rows), None)
        yield _cell(folder, runs, row)


def cells_in_tables(rows: Mapping[str, Row]) -> list[Cell]:
    """Return the cells of the rows of tables, see `rows_of`; paths are those in the tables."""
    runs: dict[str, dict[int, RunFiles]] = {}
    for run, row in rows.items():
        folder = str(Path(run).parent.relative_to(RESULTS))
        runs.setdefault(folder, {})[row.values["seed"]] = RunFiles(run)
    return [
        _cell(folder, by_seed, rows[next(iter(by_seed.values())).folder].values)
        for folder, by_seed in runs.items()
    ]


def _cell(folder: str, runs: Mapping[int, RunFiles], row: Mapping[Hashable, Any] | None) -> Cell:
    if row is None:
        return Cell(folder, runs)
    parts = Path(folder).parts
    columns = (frozenset({parts[0]}), *_names_in_columns(row, parts))
    return Cell(folder, runs, columns, row["protocol"])


def _names_in_columns(
    row: Mapping[Hashable, Any], folder: Sequence[str]
) -> tuple[frozenset[str], ...]:
    """Return the names of a row's cell in each identity column: displayed, stored, in its folder.

    The folder of a learner begins with its distiller, such as `kd+own-...`.
    """
    shown = names_of(row)
    _study, dataset, method, learner = folder
    distiller = learner.partition("-")[0]
    return (
        frozenset({row["dataset"], dataset}),
        frozenset({labels_shown(row)}),
        frozenset({shown["method"], row["method"], method}),
        frozenset({shown["backbone"]}),
        frozenset({shown["teacher"]}),
        frozenset({distiller_of(row), row["learner"], row["label"], distiller}),
    )
