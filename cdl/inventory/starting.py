"""Checks before a run: folders, sources, results that it must not overwrite, dates of files."""

import os
import shlex
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cdl.inventory.datasets import check
from cdl.inventory.learnt import is_learnt
from cdl.layout import RESULTS, RunFiles
from cdl.runtime.caches import is_writable
from cdl.runtime.errors import CdlError
from cdl.study.grid import Grid
from cdl.study.jobs import Jobs
from cdl.study.learning_jobs import user_files

_TOLERANCE = 2.0  # seconds; clocks of file servers differ a little


def check_folder(folder: Path) -> None:
    """Raise `CdlError` unless results can be written below a folder."""
    if not folder.is_dir():
        raise CdlError(f"{folder.absolute()}: no such folder; create it, or start in another one")
    for name in (RESULTS, ".snakemake"):
        link = folder / name
        if link.is_symlink() and not link.exists():
            raise CdlError(
                f"{link.absolute()}: is a link to {link.readlink()}, which does not exist; create "
                "it, or change the link"
            )
        there = (folder / name).exists()
        if not is_writable(folder / name if there else folder):
            raise CdlError(
                f"{(folder / name).absolute()}: cannot be written; start in a folder of your own, "
                "or select one with --directory"
            )


def check_sources(grid: Grid) -> None:
    """Check the user's files of a grid, whose names and, if changed, contents are read.

    Raises:
        CdlError: a source is missing or invalid, or a learner cannot train on one of its tasks.
    """
    user = user_files(grid)
    for name in user.backbones:
        user.backbone_digest(name)
    check(grid, opened=False, published=False)
    for name in user.data:
        user.data_digest(name)


def refuse_learnt(jobs: Jobs) -> None:
    """Raise `CdlError` if a run has the folder of a run that `cdl learn` made.

    Paths are relative to the current folder.
    """
    for job in jobs.of("evaluate"):
        folder = str(Path(job.records[0].path).parent)
        if is_learnt(RunFiles(folder), if_damaged=False):
            raise CdlError(
                f"{folder}: was made by `cdl learn`, and this configuration would overwrite it; "
                "change the configuration's name, or move the folder"
            )


def refuse_future(jobs: Iterable[Any]) -> None:
    """Raise `CdlError` if a job reads a file that is dated in the future.

    Snakemake refuses and deletes the outputs of a job that are older than one of its inputs.

    Args:
        jobs: all jobs of Snakemake that are going to run.
    """
    jobs = list(jobs)
    made = {str(path) for job in jobs for path in job.output}
    inputs = {str(path) for job in jobs for path in job.input} - made
    latest = time.time() + _TOLERANCE
    if late := sorted(path for path in inputs if _modified(path) > latest):
        inside = f"{RESULTS}/"
        places = {RESULTS if p.startswith(inside) else os.path.dirname(p) or "." for p in late}
        many = f" and {len(late) - 1} more" if len(late) > 1 else ""
        raise CdlError(
            f"{late[0]}{many}: dated in the future, so Snakemake would delete the results made "
            "from it; correct the clock, then set the times to now, which runs nothing again: "
            f"find {shlex.join(sorted(places))} -newermt now -exec touch {{}} +"
        )


def _modified(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0
