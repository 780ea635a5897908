"""Find and delete results that do not belong to any of the given configurations."""

import shutil
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cdl import layout
from cdl.inventory.learnt import learnt_runs, needs
from cdl.inventory.status import at_work
from cdl.layout import RESULTS, ResultsFolder, TableFiles
from cdl.runtime.errors import CdlError
from cdl.runtime.folders import busy, partial_folders
from cdl.study.grid import Grid
from cdl.study.report_jobs import study_jobs
from cdl.study.trials import Trials

CONFIGURATION = TableFiles("tables").configuration
_FILLED = (Path(RESULTS, "*/*/*/*/seed*"), Path(RESULTS, "data/*"))  # folders by `new_folder`


@dataclass(frozen=True)
class Leftover:
    """A file or folder that no configuration uses, and its size in bytes."""

    path: Path
    size: int


def leftovers(grids: Iterable[Grid], learnt: Collection[str] = ()) -> list[Leftover]:
    """Return files and whole folders that no configuration uses; unfinished work is kept.

    Paths are relative to the current folder. Symbolic links are neither followed nor returned.

    Args:
        grids: grids of the configurations.
        learnt: names of the runs of `cdl learn` that are not kept; all others are.

    Raises:
        CdlError: a name has no run of `cdl learn`.
    """
    kept = {Path(path) for grid in grids for path in _used_paths(grid)}
    results = ResultsFolder(Path(RESULTS))
    by_name = learnt_runs(results)
    for name in learnt:
        if name not in by_name:
            raise CdlError(
                f"--learnt: {name!r} has no run of cdl learn; expected one of "
                f"{', '.join(sorted(by_name)) or 'none, since there are no such runs'}"
            )
    for name in by_name.keys() - set(learnt):
        kept |= {path for run in by_name[name] for path in needs(name, run, results)}
    parents = {parent for path in kept for parent in path.parents}
    root = Path(RESULTS).resolve()
    unused: list[Path] = []
    for path in _candidates():
        linked = path.resolve() != root / path.relative_to(RESULTS)
        below = any(parent in kept or parent in unused for parent in path.parents)
        if not linked and path not in kept and path not in parents and not below:
            unused.append(path)
    return [Leftover(path, _bytes_on_disk(path)) for path in unused]


def drop(unused: Iterable[Leftover]) -> None:
    """Delete leftovers; raise `CdlError` while Snakemake or `cdl learn` runs in this folder."""
    if at_work():
        raise CdlError("snakemake is running in this folder: nothing was deleted; wait for its end")
    busy(partial_folders(*_FILLED))
    for item in unused:
        if item.path.is_dir():
            shutil.rmtree(item.path)
        else:
            item.path.unlink()


def _used_paths(grid: Grid) -> Iterator[str | Path]:
    """Yield all files that the jobs of a configuration may read or write."""
    for job in [*study_jobs(grid), *Trials(grid).jobs()]:
        yield from job.paths
        if job.rule == "prepare_dataset":
            yield layout.contents_memory("data", job.key["prepared"])
        if job.rule == "fetch_backbone":
            yield layout.contents_memory("backbones", job.key["fetched"])
    yield from (layout.contents_memory("queries", name) for name in grid.answers)


def _candidates() -> Iterator[Path]:
    """Yield files and folders that this program may have written, outer folders first."""
    root = Path(RESULTS)
    names = [path for path in sorted(root.glob("*/")) if path.name not in layout.RESERVED]
    studies = [path for path in names if _is_study(path)]
    yield from studies
    for kind in ("data", "backbones", "queries"):
        yield from sorted(root.glob(f"{kind}/*"))
    for folder in (root, *studies):
        yield from (folder / part for part in ("tables", "figures") if (folder / part).is_dir())
        yield from folder.glob(layout.PAGE)
    for folder in studies:
        runs = sorted(folder.glob("*/*/*/seed*"))
        yield from sorted({learner for run in runs for learner in (*run.parents,)[2::-1]})
        yield from runs
        yield from (path for run in runs for path in sorted(run.glob("task*")))
        yield from sorted(folder.glob(layout.DEPLOYED))
    yield from (path for path, owner in partial_folders(*_FILLED) if not owner)


def _is_study(folder: Path) -> bool:
    return any(folder.glob("*/*/*/seed*/task*")) or (folder / CONFIGURATION).is_file()


def _bytes_on_disk(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if not file.is_dir())
