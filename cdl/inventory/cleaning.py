"""What lies below `results/` that no given configuration names, and how to drop it."""

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cdl import layout
from cdl.inventory.status import at_work
from cdl.layout import RESULTS, TableFiles
from cdl.runtime.errors import CdlError
from cdl.study.grid import Grid
from cdl.study.report_jobs import study_jobs
from cdl.study.trials import Trials

CONFIGURATION = TableFiles("tables").configuration


@dataclass(frozen=True)
class Leftover:
    """A file or folder that no configuration names, and its size in bytes."""

    path: Path
    size: int


def leftovers(grids: Iterable[Grid]) -> list[Leftover]:
    """Return what may be dropped, folders with all that lies in them; unfinished work stays.

    Paths are relative to the current folder; links are neither followed nor named.
    """
    kept = {Path(path) for grid in grids for path in _named(grid)}
    parents = {parent for path in kept for parent in path.parents}
    root = Path(RESULTS).resolve()
    found: list[Path] = []
    for path in _candidates():
        linked = path.resolve() != root / path.relative_to(RESULTS)
        below = any(parent in kept or parent in found for parent in path.parents)
        if not linked and path not in kept and path not in parents and not below:
            found.append(path)
    return [Leftover(path, _size(path)) for path in found]


def drop(found: Iterable[Leftover]) -> None:
    """Delete leftovers; raise `CdlError` while Snakemake works in this folder."""
    if at_work():
        raise CdlError("snakemake works in this folder: nothing was deleted; wait until it is done")
    for item in found:
        if item.path.is_dir():
            shutil.rmtree(item.path)
        else:
            item.path.unlink()


def _named(grid: Grid) -> Iterator[str | Path]:
    """Yield files that a configuration may read or write."""
    for job in [*study_jobs(grid), *Trials(grid).jobs()]:
        yield from job.paths
        if job.rule == "prepare_dataset":
            yield layout.contents_memory("data", job.key["prepared"])
        if job.rule == "fetch_backbone":
            yield layout.contents_memory("backbones", job.key["fetched"])


def _candidates() -> Iterator[Path]:
    """Yield what this program may have written, the widest first."""
    root = Path(RESULTS)
    names = [path for path in sorted(root.glob("*/")) if path.name not in layout.RESERVED]
    ours = [path for path in names if _is_ours(path)]
    yield from ours
    for kind in ("data", "backbones", "queries"):
        yield from sorted(root.glob(f"{kind}/*"))
    for folder in (root, *ours):
        yield from (folder / part for part in ("tables", "figures") if (folder / part).is_dir())
        yield from folder.glob(layout.PAGE)
    for folder in ours:
        runs = sorted(folder.glob("*/*/*/seed*"))
        yield from sorted({learner for run in runs for learner in (*run.parents,)[2::-1]})
        yield from runs
        yield from (path for run in runs for path in sorted(run.glob("task*")))
        yield from sorted(folder.glob(layout.DEPLOYED))


def _is_ours(folder: Path) -> bool:
    return any(folder.glob("*/*/*/seed*/task*")) or (folder / CONFIGURATION).is_file()


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if not file.is_dir())
