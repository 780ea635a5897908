"""Compute the paired difference of two cells or runs. Does not import torch."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cdl.evaluation.predictions import classes_of, read_predictions
from cdl.inventory.naming import elsewhere
from cdl.layout import RESULTS, ResultsFolder, RunFiles
from cdl.reporting.crossed import Answers, difference, on_common_images
from cdl.reporting.names import distiller_of, labels_shown, named, names_of
from cdl.reporting.style import names
from cdl.reporting.tables import read
from cdl.runtime.artifacts import read_json
from cdl.runtime.errors import CdlError
from cdl.runtime.shown import Shown

_ENDS = ("low_by_class", "high_by_class")
USUAL = "default"  # preferred study for a name without one that matches cells of several studies


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


class Part(NamedTuple):
    """The difference on the test images of one task or class, as in `Comparison`."""

    name: str
    difference: float
    low: float
    high: float
    p: float
    images: int


@dataclass(frozen=True, repr=False)
class Comparison(Shown):
    """Final average accuracy of one cell minus that of another, paired by seed and test image.

    Attributes:
        first: folder of the cell, below the folder of results.
        second: folder of the cell whose accuracy is subtracted.
        difference: difference in percentage points.
        low: lower end of the 95 % interval, see `cdl.reporting.crossed`.
        high: upper end of the interval.
        low_by_class: lower end of the interval over classes, see `crossed.by_class`; NaN without.
        high_by_class: upper end of that interval.
        p: two-sided p value of no difference.
        seeds: number of common seeds.
        images: number of common test images.
        over: populations that the interval covers, such as seeds and test examples.
        common_seeds: the common seeds.
        by: `task`, or `class` if class orders differ between seeds.
        protocols: hashes of the protocols of both, if a table has them.
        parts: the difference for each task, counted from 1, or each class.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    low_by_class: float
    high_by_class: float
    p: float
    seeds: int
    images: int
    over: str
    common_seeds: list[int]
    by: str
    protocols: list[str]
    parts: list[Part]

    def as_dict(self) -> dict[str, Any]:
        """Return a dictionary for JSON; an undefined p value is None."""
        parts = [part._asdict() | {"p": _or_none(part.p)} for part in self.parts]
        numbers = {name: _or_none(getattr(self, name)) for name in ("p", *_ENDS)}
        return asdict(self) | numbers | {"parts": parts}

    def text(self) -> str:
        """Return the comparison as text, one line per part."""
        n = f"{self.seeds} seed{'s' if self.seeds > 1 else ''}"
        lines = [
            f"{self.first}",
            f"minus {self.second}:",
            f"{_format_points(self)}, p {format_p(self.p)}; 95 % interval over {self.over}, {n}, "
            f"{self.images:,} test examples",
        ]
        if not np.isnan(self.low_by_class):
            ends = f"{self.low_by_class:+.1f} to {self.high_by_class:+.1f}"
            lines.append(f"{ends} over classes: how far it holds for other classes than these")
        if len({*self.protocols}) > 1:
            lines.append(f"the protocols differ: {', '.join(self.protocols)}")
        lines.append(f"by {self.by}, each on its own examples, p values not corrected:")
        width = max(len(part.name) for part in self.parts)
        lines += [
            f"  {part.name:<{width}}  {_format_points(part)}, p {format_p(part.p)}, "
            f"{part.images} examples"
            for part in self.parts
        ]
        return "\n".join(lines)


def compare(first: str, second: str, results: ResultsFolder) -> Comparison:
    """Compare two cells or runs.

    Args:
        first: folder of a cell or of a run (`.../seed0`) below the study's folder, with or without
            parent folders; or names from the columns of the tables, separated by `/`, such as
            `cifar20/coda_prompt/kd`.
        second: the same for the cell or run that is subtracted.
        results: folder of the workflow's results.

    Raises:
        CdlError: a name matches no cell or several, there is no common seed or test image, or
            predictions are damaged.
    """
    cells = list(_cells(results))
    if not cells:
        raise CdlError(
            f"{results.path}: contains no finished run; run `cdl run CONFIG` first{elsewhere()}"
        )
    one, other = (_find_cell(name, cells, results.path) for name in (first, second))
    if one.folder == other.folder and (one == other or len(one.runs) == 1 or len(other.runs) == 1):
        raise CdlError(f"both names mean {one.folder}; expected two different cells or runs")
    seeds = sorted(one.runs.keys() & other.runs.keys())
    if not seeds:
        raise CdlError(
            f"{one.folder} has seeds {_seed_list(one.runs)} and {other.folder} has "
            f"{_seed_list(other.runs)}: expected a common seed"
        )
    pairs = [(one.runs[seed], other.runs[seed]) for seed in seeds]
    contents = [tuple(read_json(files.results) for files in pair) for pair in pairs]
    if any(run["data"]["test"] != baseline["data"]["test"] for run, baseline in contents):
        raise CdlError(f"{one.folder} and {other.folder} were tested on different examples")
    frames = [tuple(read_predictions(files) for files in pair) for pair in pairs]
    orders = {(*run["classes"], *run["test_images"]) for pair in contents for run in pair}
    by_task = len(orders) == 1
    by = "task" if by_task else "class"
    sides = [[Answers.of_table(frame) for frame in side] for side in zip(*frames, strict=True)]
    common = on_common_images(*sides)
    if not all(len(run.image) for run in common[0]):
        raise CdlError(f"{one.folder} and {other.folder} have no test example in common")
    found = difference(common[0], common[1], classes_of(frames[0][0]))
    groups = pd.concat(frame for pair in frames for frame in pair).groupby(by)["image"]
    return Comparison(
        one.folder,
        other.folder,
        *found,
        seeds,
        by,
        [cell.protocol for cell in (one, other) if cell.protocol],
        [_part(name, images.unique(), common) for name, images in groups],
    )


def _cells(results: ResultsFolder) -> Iterator[Cell]:
    """Yield all cells with finished runs."""
    known = {str(row["run"]): row for row in _rows(results)}
    for folder, runs in results.finished().items():
        row = next((known[r.folder] for r in runs.values() if r.folder in known), None)
        study = frozenset({Path(folder).parts[0]})
        columns = () if row is None else (study, *_names_in_columns(row, Path(folder).parts))
        yield Cell(folder, runs, columns, "" if row is None else row["protocol"])


def _rows(results: ResultsFolder) -> Iterator[dict[Hashable, Any]]:
    """Yield the rows of all tables, with the paths of their runs; skip damaged tables."""
    for table, record in results.tables():
        try:
            rows = read(table, record)
        except CdlError:
            continue  # cells can still be found by their paths
        rows["learner"] = names(rows)
        rows = named(rows)
        for row in rows.to_dict("records"):
            yield row | {"run": results.run(row["run"]).folder}


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


def _find_cell(name: str, cells: Sequence[Cell], results: Path) -> Cell:
    """Return the cell that a name matches, reduced to one run if the name has a seed.

    Raises:
        CdlError: the name does not match exactly one cell with this seed.
    """
    words = _below(name, results).replace("|", "/").split("/")
    parts = [word.strip() for word in words if word.strip(" .")]
    seed = next((part for part in parts if _is_seed(part)), None)
    parts = parts if seed is None else parts[: parts.index(seed)]
    by_folder = [
        c for c in cells if tuple(parts) in (Path(c.folder).parts, Path(c.folder).parts[1:])
    ]
    found = by_folder or [cell for cell in cells if _in_order(parts, cell.names)]
    usual = [cell for cell in found if Path(cell.folder).parts[0] == USUAL]
    if len(found) > 1 and len(usual) == 1:
        found = usual
    if len(found) != 1:
        known = [cell.folder for cell in found or cells]
        some = get_close_matches("/".join(parts), known, cutoff=0) if not found else known[:4]
        why = f"matches {len(found)} cells" if found else "matches no cell with finished runs"
        raise CdlError(f"{name!r} {why}; expected one such as {', '.join(some)}")
    if seed is None:
        return found[0]
    number = int(seed.removeprefix("seed"))
    if number not in found[0].runs:
        raise CdlError(
            f"{name!r}: seed {number} is not finished; expected one of {_seed_list(found[0].runs)}"
        )
    return replace(found[0], runs={number: found[0].runs[number]})


def _is_seed(part: str) -> bool:
    return part.startswith("seed") and part.removeprefix("seed").isdecimal()


def _below(name: str, results: Path) -> str:
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


def _part(name: Any, images: Any, sides: Sequence[Sequence[Answers]]) -> Part:
    """Return the difference on some images, all with the same weight."""
    selected = [[run.of(np.sort(images)) for run in side] for side in sides]
    first, second = (
        [run._replace(task=np.zeros_like(run.task)) for run in side] for side in selected
    )
    found = difference(first, second)
    label = name if isinstance(name, str) else f"task {name + 1}"
    return Part(label, found.value, found.low, found.high, found.p, found.images)


def _seed_list(runs: Mapping[int, Any]) -> str:
    return ", ".join(map(str, sorted(runs)))


def _format_points(part: Comparison | Part) -> str:
    return f"{part.difference:+.1f} points ({part.low:+.1f} to {part.high:+.1f})"


def format_p(value: float) -> str:
    """Return a p value as text."""
    if np.isnan(value):
        return "not defined"
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value
