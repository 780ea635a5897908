"""What the next run overwrites: results of the same row that were made with other values."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from cdl.runtime.artifacts import first_difference, read_json
from cdl.runtime.errors import CdlError
from cdl.study.grid import Grid
from cdl.study.specifications import specification

SHOWN = 5


def announced(grid: Grid, files: Iterable[str | Path]) -> list[str]:
    """Return what is said before a run: what it overwrites, and how finished files are compared.

    Args:
        grid: what is asked for.
        files: of its configuration.
    """
    names = " ".join(map(str, files))
    return [*overwritten(grid), f"`cdl verify {names}` compares finished files with their hashes"]


def overwritten(grid: Grid) -> list[str]:
    """Return lines for people that name the runs and what of each is different, if there are any.

    Paths are relative to the current folder.
    """
    found = list(_outdated(grid))
    if not found:
        return []
    lines = [f"finished runs that were made with other values will be overwritten, {len(found)}:"]
    lines += [f"  {line}" for line in found[:SHOWN]]
    if len(found) > SHOWN:
        lines.append(f"  and {len(found) - SHOWN} more, see `cdl status`")
    return [*lines, "  to keep them give this configuration another name, or the blocks a variant"]


def _outdated(grid: Grid) -> Iterator[str]:
    for run in grid.runs:
        try:
            made = read_json(grid.files(run).results)["learner"]
        except (CdlError, KeyError):  # not there, or to be refused by who needs it
            continue
        difference = first_difference(made, specification(grid, run).to_json())
        if difference:
            key, before, now = difference
            yield f"{run.folder}: {key} {before}, now {now}"
