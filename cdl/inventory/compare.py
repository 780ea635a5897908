"""Compute the paired difference of two cells or runs. Does not import torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cdl.evaluation.predictions import classes_of, read_predictions
from cdl.inventory.cells import Row, cells_of, rows_of
from cdl.inventory.naming import Cell, elsewhere, find_cell, seed_list
from cdl.layout import ResultsFolder
from cdl.reporting.crossed import Outcomes, difference, on_common_images
from cdl.reporting.text import INTERVAL, p_value, seeds
from cdl.runtime.artifacts import differences, read_json
from cdl.runtime.errors import CdlError
from cdl.runtime.shown import Shown

_SHOWN = 5  # fields in which protocols differ
_ENDS = ("low_by_class", "high_by_class")


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
        protocol_differences: fields in which they differ, with both values.
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
    protocol_differences: list[str]
    parts: list[Part]

    def as_dict(self) -> dict[str, Any]:
        """Return a dictionary for JSON; an undefined p value is None."""
        parts = [part._asdict() | {"p": _or_none(part.p)} for part in self.parts]
        numbers = {name: _or_none(getattr(self, name)) for name in ("p", *_ENDS)}
        return super().as_dict() | numbers | {"parts": parts}

    def text(self) -> str:
        """Return the comparison as text, one line per part."""
        lines = [
            f"{self.first}",
            f"minus {self.second}:",
            f"{_format_points(self)}, {p_value(self.p)}; {INTERVAL} {self.over}, "
            f"{seeds(self.seeds)}, {self.images:,} test examples",
        ]
        if not np.isnan(self.low_by_class):
            ends = f"{self.low_by_class:+.1f} to {self.high_by_class:+.1f}"
            lines.append(f"{ends} over classes: how far it holds for other classes than these")
        if len({*self.protocols}) > 1:
            fields = self.protocol_differences or self.protocols
            more = f" and {len(fields) - _SHOWN} more fields" if len(fields) > _SHOWN else ""
            lines.append(
                f"the protocols differ in {'; '.join(fields[:_SHOWN])}{more}: the difference is "
                "not of the learners alone"
            )
        lines.append(f"by {self.by}, each on its own examples, p values not corrected:")
        width = max(len(part.name) for part in self.parts)
        lines += [
            f"  {part.name:<{width}}  {_format_points(part)}, {p_value(part.p)}, "
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
    rows = {results.run(run).folder: row for run, row in rows_of(results)[0].items()}
    cells = list(cells_of(results, rows))
    if not cells:
        raise CdlError(
            f"{results.path}: contains no finished run; run `cdl run CONFIG` first{elsewhere()}"
        )
    one, other = (find_cell(name, cells, results.path) for name in (first, second))
    if one.folder == other.folder and (one == other or len(one.runs) == 1 or len(other.runs) == 1):
        raise CdlError(f"both names mean {one.folder}; expected two different cells or runs")
    seeds = sorted(one.runs.keys() & other.runs.keys())
    if not seeds:
        raise CdlError(
            f"{one.folder} has seeds {seed_list(one.runs)} and {other.folder} has "
            f"{seed_list(other.runs)}: expected a common seed"
        )
    pairs = [(one.runs[seed], other.runs[seed]) for seed in seeds]
    contents = [tuple(read_json(files.results) for files in pair) for pair in pairs]
    if any(run["data"]["test"] != baseline["data"]["test"] for run, baseline in contents):
        raise CdlError(f"{one.folder} and {other.folder} were tested on different examples")
    frames = [tuple(read_predictions(files) for files in pair) for pair in pairs]
    orders = {(*run["classes"], *run["test_images"]) for pair in contents for run in pair}
    by_task = len(orders) == 1
    by = "task" if by_task else "class"
    sides = [[Outcomes.of_table(frame) for frame in side] for side in zip(*frames, strict=True)]
    common = on_common_images(*sides)
    if not all(len(run.image) for run in common[0]):
        raise CdlError(f"{one.folder} and {other.folder} have no test example in common")
    whole = difference(common[0], common[1], classes_of(frames[0][0]))
    groups = pd.concat(frame for pair in frames for frame in pair).groupby(by)["image"]
    return Comparison(
        one.folder,
        other.folder,
        *whole,
        seeds,
        by,
        [cell.protocol for cell in (one, other) if cell.protocol],
        _protocol_differences((one, other), rows),
        [_part(name, images.unique(), common) for name, images in groups],
    )


def _protocol_differences(cells: Sequence[Cell], known: Mapping[str, Row]) -> list[str]:
    """Return the fields in which the protocols of two cells in tables differ, with both values."""
    rows = [
        known[r.folder] for cell in cells for r in [*cell.runs.values()][:1] if r.folder in known
    ]
    if len(rows) < len(cells):
        return []
    pair = [read_json(row.protocols).get(str(row.values["protocol"]), {}) for row in rows]
    return [f"{field} ({value:.40} and {other:.40})" for field, value, other in differences(*pair)]


def _part(name: Any, images: Any, sides: Sequence[Sequence[Outcomes]]) -> Part:
    """Return the difference on some images, all with the same weight."""
    selected = [[run.of(np.sort(images)) for run in side] for side in sides]
    first, second = (
        [run._replace(task=np.zeros_like(run.task)) for run in side] for side in selected
    )
    paired = difference(first, second)
    label = name if isinstance(name, str) else f"task {name + 1}"
    return Part(label, paired.value, paired.low, paired.high, paired.p, paired.images)


def _format_points(part: Comparison | Part) -> str:
    return f"{part.difference:+.1f} points ({part.low:+.1f} to {part.high:+.1f})"


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value
