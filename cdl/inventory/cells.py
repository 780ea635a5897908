"""Find cells of the tables by the names that the tables show."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from cdl.layout import RESULTS, ResultsFolder, RunFiles
from cdl.reporting.names import distiller_of, labels_shown, named, names, names_of
from cdl.reporting.tables import read
from cdl.runtime.errors import CdlError

USUAL = "default"  # preferred study for a name without one that matches cells of several studies


class Row(NamedTuple):
    """A row of a table of runs, the table, and the JSON file with its protocols."""

    values: Mapping[Hashable, Any]
    table: Path
    protocols: Path


@dataclass(frozen=True)
class Cell:
    """Finished runs of one learner.

    Attributes:
        folder: `NAME/DATASET/METHOD/LEARNER`, below the folder of results.
        runs: files of each run, by seed.
        names: names in the identity columns of the tables, column by column; empty without a
            table.
        protocol: hash of the protocol in the tables.
    """

    folder: str
    runs: Mapping[int, RunFiles]
    names: tuple[frozenset[str], ...] = ()
    protocol: str = ""


def rows_of(results: ResultsFolder) -> tuple[dict[str, Row], list[str]]:
    """Return the row of each run in the tables, by its folder there; and errors of damaged tables.

    If a run is in several tables, its row is that of the complete one.
    """
    rows: dict[str, Row] = {}
    damaged: list[str] = []
    for table, protocols in results.tables():
        try:
            found = read(table, protocols)
        except CdlError as error:
            damaged.append(str(error))
            continue
        found["learner"] = names(found)
        found = named(found)
        rows |= {row["run"]: Row(row, table, protocols) for row in found.to_dict("records")}
    return rows, damaged


def cells_of(results: ResultsFolder) -> Iterator[Cell]:
    """Yield all cells with finished runs, also those that are in no table or a damaged one."""
    known = {results.run(run).folder: row.values for run, row in rows_of(results)[0].items()}
    for folder, runs in results.finished().items():
        row = next((known[r.folder] for r in runs.values() if r.folder in known), None)
        yield _cell(folder, runs, row)


def cells_in_tables(rows: Mapping[str, Row]) -> list[Cell]:
    """Return the cells of the rows of tables, see `rows_of`; paths are those in the tables."""
    runs: dict[str, dict[int, RunFiles]] = {}
    for run, row in rows.items():
        folder = str(Path(run).parent.relative_to(RESULTS))
        runs.setdefault(folder, {})[row.values["seed"]] = RunFiles(run)
    first = {folder: next(iter(own.values())).folder for folder, own in runs.items()}
    return [_cell(folder, own, rows[first[folder]].values) for folder, own in runs.items()]


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


def find_cell(name: str, cells: Sequence[Cell], results: Path) -> Cell:
    """Return the cell that a name matches, reduced to one run if the name has a seed.

    Raises:
        CdlError: the name does not match exactly one cell with this seed.
    """
    found = matching(name, cells, results)
    if len(found) != 1:
        known = [cell.folder for cell in found or cells]
        some = get_close_matches(name, known, cutoff=0) if not found else known[:4]
        why = f"matches {len(found)} cells" if found else "matches no cell with finished runs"
        raise CdlError(f"{name!r} {why}; expected one such as {', '.join(some)}")
    return found[0]


def matching(name: str, cells: Sequence[Cell], results: Path) -> list[Cell]:
    """Return the cells that a name matches, reduced to one run each if the name has a seed.

    Args:
        name: folder of a cell or of a run (`.../seed0`), with or without the folder of its study
            and parent folders; or names from the columns of the tables, in their order and
            separated by `/` or `|`, such as `cifar20/coda_prompt/kd`.
        cells: cells with finished runs.
        results: folder of the results.

    Raises:
        CdlError: the only cell that matches has no run with this seed.
    """
    words = below(name, results).replace("|", "/").split("/")
    parts = [word.strip() for word in words if word.strip(" .")]
    seed = next((part for part in parts if _is_seed(part)), None)
    parts = parts if seed is None else parts[: parts.index(seed)]
    by_folder = [
        c for c in cells if tuple(parts) in (Path(c.folder).parts, Path(c.folder).parts[1:])
    ]
    found = by_folder or [cell for cell in cells if _in_order(parts, cell.names)]
    usual = [cell for cell in found if Path(cell.folder).parts[0] == USUAL]
    found = usual if len(usual) == 1 else found
    if seed is None:
        return found
    number = int(seed.removeprefix("seed"))
    if len(found) == 1 and number not in found[0].runs:
        raise CdlError(
            f"{name!r}: seed {number} is not finished; expected one of {seed_list(found[0].runs)}"
        )
    return [replace(c, runs={number: c.runs[number]}) for c in found if number in c.runs]


def _is_seed(part: str) -> bool:
    return part.startswith("seed") and part.removeprefix("seed").isdecimal()


def below(name: str, results: Path) -> str:
    """Return a name without the folder of results in front, if it is a path."""
    path = Path(name)
    if path.is_absolute() or path.exists():
        with suppress(ValueError):
            return str(path.resolve().relative_to(results.resolve()))
    return name.removeprefix("./").removeprefix(f"{RESULTS}/")


def _in_order(wanted: Sequence[str], columns: Sequence[frozenset[str]]) -> bool:
    """Return whether every word is a name in a column, in the order of the columns."""
    rest = iter(columns)
    return bool(wanted) and all(any(word in column for column in rest) for word in wanted)


def seed_list(runs: Mapping[int, Any]) -> str:
    """Return the seeds of runs as text."""
    return ", ".join(map(str, sorted(runs)))
