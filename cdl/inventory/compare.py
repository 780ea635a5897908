"""The paired difference of any two cells or runs below a folder of results. No torch."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cdl.report.style import names
from cdl.runtime.artifacts import read_json
from cdl.runtime.errors import CdlError
from cdl.study.layout import ResultsFolder, RunFiles
from cdl.tables.crossed import Answers, estimate, over, paired
from cdl.tables.runs import distiller_of, names_of, read, read_predictions

USUAL = "default"  # the study that a name without one means, where several have such a cell


@dataclass(frozen=True)
class Cell:
    """Finished runs of one learner.

    Attributes:
        folder: `NAME/DATASET/METHOD/LEARNER`, below the folder of results.
        runs: files of each run by its seed.
        called: names of its columns in the tables, in their order; none without a table.
    """

    folder: str
    runs: Mapping[int, RunFiles]
    called: tuple[frozenset[str], ...] = ()


class Part(NamedTuple):
    """The difference on the test images of one task or class, as in `Comparison`."""

    name: str
    difference: float
    low: float
    high: float
    p: float
    images: int


@dataclass(frozen=True)
class Comparison:
    """Final average accuracy of one cell minus that of another, paired by seed and test image.

    Attributes:
        first: folder of the cell, below the folder of results.
        second: folder of the cell whose accuracy is subtracted.
        difference: in points.
        low: lower end of the 95 % interval, see `cdl.tables.crossed`.
        high: its upper end.
        p: two-sided, of no difference.
        seeds: how many both have.
        images: how many test images both were tested on.
        over: what the interval is taken over.
        common_seeds: the seeds.
        by: `task`, or `class` where seeds have class orders of their own.
        parts: the same of every task or class.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    p: float
    seeds: int
    images: int
    over: str
    common_seeds: list[int]
    by: str
    parts: list[Part]

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self) | {"parts": [part._asdict() for part in self.parts]}

    def text(self) -> str:
        """Return it for people."""
        n = f"{self.seeds} seed{'s' if self.seeds > 1 else ''}"
        lines = [
            f"{self.first}",
            f"minus {self.second}:",
            f"{_points(self)}, p {_p(self.p)}; 95 % interval over {self.over}, {n}, "
            f"{self.images:,} test images",
            f"by {self.by}, each on its own images:",
        ]
        width = max(len(part.name) for part in self.parts)
        lines += [
            f"  {part.name:<{width}}  {_points(part)}, p {_p(part.p)}, {part.images} images"
            for part in self.parts
        ]
        return "\n".join(lines)


def compare(first: str, second: str, results: ResultsFolder) -> Comparison:
    """Compare two cells or runs.

    Args:
        first: folder of a cell or of a run (`.../seed0`) below the study's folder, with or without
            folders above it; or names of its columns in the tables, divided by `/`, such as
            `cifar20/coda_prompt/kd`.
        second: the same, of the one that is subtracted.
        results: where the workflow writes to.

    Raises:
        CdlError: a name fits no cell or several, or the two have no seed or no test images in
            common, or predictions are damaged.
    """
    cells = list(_cells(results))
    if not cells:
        raise CdlError(f"{results.path}: no finished run below it; run `cdl run CONFIG` first")
    one, other = (_find(name, cells) for name in (first, second))
    seeds = sorted(one.runs.keys() & other.runs.keys())
    if not seeds:
        raise CdlError(
            f"{one.folder} has seeds {_listed(one.runs)} and {other.folder} has "
            f"{_listed(other.runs)}: there is no common seed to pair"
        )
    pairs = [(one.runs[seed], other.runs[seed]) for seed in seeds]
    made = [tuple(read_json(files.results) for files in pair) for pair in pairs]
    if any(mine["data"]["test"] != others["data"]["test"] for mine, others in made):
        raise CdlError(f"{one.folder} and {other.folder} were tested on different images")
    frames = [tuple(read_predictions(files) for files in pair) for pair in pairs]
    by_task = len({(*run["classes"], *run["test_images"]) for pair in made for run in pair}) == 1
    by = "task" if by_task else "class"
    sides = [[_answers(frame) for frame in side] for side in zip(*frames, strict=True)]
    values = paired(*sides)
    if not values.size:
        raise CdlError(f"{one.folder} and {other.folder} have no test image in common")
    found = estimate(values)
    labels = frames[0][0].set_index("image")[by].sort_values()
    return Comparison(
        one.folder,
        other.folder,
        *found.interval,
        found.p,
        len(seeds),
        values.shape[1],
        over(values),
        seeds,
        by,
        [_part(name, labels.index[labels == name].to_numpy(), sides) for name in labels.unique()],
    )


def _cells(results: ResultsFolder) -> Iterator[Cell]:
    """Yield all cells with finished runs."""
    known = {str(row["run"]): row for row in _rows(results)}
    for folder, runs in results.finished().items():
        row = next((known[r.folder] for r in runs.values() if r.folder in known), None)
        yield Cell(folder, runs, () if row is None else _called(row))


def _rows(results: ResultsFolder) -> Iterator[dict[Hashable, Any]]:
    """Yield the rows of all tables, with the paths of their runs; damaged tables are left out."""
    for table, record in results.tables():
        try:
            rows = read(table, record)
        except CdlError:
            continue  # folders are still known by their paths
        rows["learner"] = names(rows)
        for row in rows.to_dict("records"):
            yield row | {"run": results.run(row["run"]).folder}


def _called(row: Mapping[Hashable, Any]) -> tuple[frozenset[str], ...]:
    shown = names_of(row)
    return (
        frozenset({row["dataset"]}),
        frozenset({shown["method"], row["method"]}),
        frozenset({shown["learner"]}),
        frozenset({shown["taught by"]}),
        frozenset({distiller_of(row), row["learner"]}),
    )


def _find(name: str, cells: Sequence[Cell]) -> Cell:
    """Return the cell or run of a name; raise `CdlError` unless there is exactly one."""
    parts = [part.strip() for part in name.replace("|", "/").split("/") if part.strip(" .")]
    seed = parts.pop() if parts and _is_seed(parts[-1]) else None
    by_folder = [cell for cell in cells if _ends(parts, Path(cell.folder).parts)]
    found = by_folder or [cell for cell in cells if _in_order(parts, cell.called)]
    usual = [cell for cell in found if Path(cell.folder).parts[0] == USUAL]
    if len(found) > 1 and len(usual) == 1:
        found = usual
    if len(found) != 1:
        some = ", ".join(cell.folder for cell in (found or cells)[:4])
        why = f"names {len(found)} cells" if found else "names no cell with finished runs"
        raise CdlError(f"{name!r} {why}; expected one such as {some}")
    if seed is None:
        return found[0]
    number = int(seed.removeprefix("seed"))
    if number not in found[0].runs:
        raise CdlError(f"{name!r}: finished seeds of this cell are {_listed(found[0].runs)}")
    return Cell(found[0].folder, {number: found[0].runs[number]})


def _is_seed(part: str) -> bool:
    return part.startswith("seed") and part.removeprefix("seed").isdecimal()


def _ends(wanted: Sequence[str], folder: Sequence[str]) -> bool:
    """Whether a name ends with a cell's folder, with or without its study; more may precede it."""
    shorter = folder[1:]
    return tuple(wanted[-len(folder) :]) == folder or tuple(wanted) == shorter


def _in_order(wanted: Sequence[str], called: Sequence[frozenset[str]]) -> bool:
    """Whether every word is the name of a column, in the order of the columns."""
    rest = iter(called)
    return bool(wanted) and all(any(word in column for column in rest) for word in wanted)


def _answers(frame: Any) -> Answers:
    return Answers(*(frame[name].to_numpy() for name in Answers._fields))


def _part(name: Any, images: Any, sides: Sequence[Sequence[Answers]]) -> Part:
    """Return the difference on some images, which count alike whatever their tasks."""
    some = [[run.of(np.sort(images)) for run in side] for side in sides]
    alike = [[run._replace(task=np.zeros_like(run.task)) for run in side] for side in some]
    values = paired(*alike)
    found = estimate(values)
    label = name if isinstance(name, str) else f"task {name}"
    return Part(label, *found.interval, found.p, values.shape[1])


def _listed(runs: Mapping[int, Any]) -> str:
    return ", ".join(map(str, sorted(runs)))


def _points(part: Comparison | Part) -> str:
    return f"{part.difference:+.1f} points ({part.low:+.1f} to {part.high:+.1f})"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"
