"""Results of runs as a table for Python. Does not import torch."""

import os
from pathlib import Path

import pandas as pd

from cdl.inventory.finished import finished_runs, finished_table
from cdl.inventory.naming import nothing_here
from cdl.layout import ResultsFolder, RunFiles
from cdl.reporting.columns import IDENTITY
from cdl.reporting.tables import read
from cdl.runtime.artifacts import read_json
from cdl.runtime.errors import CdlError
from cdl.study.grid import Grid


class Results(pd.DataFrame):
    """A row for each run; see `cdl.results`.

    It holds nothing but its columns, so that rows can be selected, sorted and joined: `curves` and
    `matrix` read the runs that the column `run` names, which pandas' `attrs` could not follow.
    """

    @property
    def _constructor(self) -> "type[Results]":
        return Results

    @property
    def curves(self) -> pd.DataFrame:
        """Mean accuracy over the tasks seen, in percent: a row for each run and stage."""
        matrix = self.matrix
        seen = matrix[matrix["task"] <= matrix["stage"]]
        keys = [name for name in matrix if name not in ("task", "accuracy")]
        return seen.groupby(keys, sort=False)["accuracy"].mean().reset_index()

    @property
    def matrix(self) -> pd.DataFrame:
        """Accuracy in percent on a task after a stage: a row for each run, stage and task.

        Stages and tasks are counted from 0. Stage 2 is the student after its third task; tasks
        after the stage are those that it has not learnt yet, if they were measured.

        Raises:
            CdlError: the column `run` is missing, or a run is missing or damaged.
        """
        if "run" not in self:
            raise CdlError(
                "the column run is missing; take .curves or .matrix before it is dropped"
            )
        names = [name for name in IDENTITY if name in self]
        rows = []
        for row in self.to_dict("records"):
            identity = {**{name: row[name] for name in names}, "run": row["run"]}
            for stage, line in enumerate(read_json(RunFiles(str(row["run"])).results)["matrix"]):
                for task, accuracy in enumerate(line):
                    if accuracy is not None:
                        where = {"stage": stage, "task": task}
                        rows.append({**identity, **where, "accuracy": accuracy})
        return pd.DataFrame(rows, columns=[*names, "run", "stage", "task", "accuracy"])


def results_of_grid(grid: Grid) -> Results:
    """Return the finished runs of a grid; paths are relative to the current folder.

    Raises:
        CdlError: there are no results of this name, or a file is damaged.
    """
    if not Path(grid.layout.root).is_dir():
        raise CdlError(nothing_here(grid.config["name"]))
    runs, _ = finished_runs(grid)
    table, _ = finished_table(grid, runs)
    return Results(table[table["protocol"] != ""].reset_index(drop=True))


def results_below(folder: Path) -> Results:
    """Return the runs in a folder that a table has, complete tables before partial ones.

    Args:
        folder: the folder of all results, of a study, of one of its parts, or of a run.

    Raises:
        CdlError: no table has a run in it, or a table is damaged.
    """
    inside = Path(os.path.abspath(folder))
    for place in (inside, *inside.parents):
        tables = [read(*files) for files in ResultsFolder(place).tables()]
        table = pd.concat(tables) if tables else pd.DataFrame({"run": []})
        table["run"] = [_shown(place.parent / run) for run in table["run"]]
        table = table.drop_duplicates("run", keep="last")
        rows = [_is_inside(run, inside) for run in table["run"]]
        if any(rows):
            return Results(table[rows].reset_index(drop=True))
    raise CdlError(f"{folder}: contains no run that is in a table; run `cdl run CONFIG` first")


def _is_inside(run: str, folder: Path) -> bool:
    """Return whether a finished run is in a folder."""
    is_run = Path(RunFiles(run).results).is_file()
    return is_run and Path(os.path.abspath(run)).is_relative_to(folder)


def _shown(path: Path) -> str:
    """Return a path relative to the current folder if it is below it."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
