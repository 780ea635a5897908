"""Send losses, accuracies and configurations of finished and running tasks to a tracker."""

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cdl.inventory.state import DAMAGED, DONE, States
from cdl.inventory.status import at_work, started
from cdl.reporting.trackers import TARGETS, TrackedRun, check_installed, send
from cdl.runtime.shown import Shown
from cdl.study.grid import Grid
from cdl.study.jobs import Job, flat
from cdl.study.runs import Run
from cdl.study.specifications import specification

# what `cdl.training.loop` logs after each epoch, counted from 1: `task 1 epoch 1/5 ce 2.3025`
_EPOCH = re.compile(r" task \d+ epoch (\d+)/(\d+)((?: \S+ -?\d+\.\d+)+)$", re.MULTILINE)
_Curves = defaultdict[str, dict[int, float]]


@dataclass(frozen=True, repr=False)
class Tracking(Shown):
    """What was sent.

    Attributes:
        target: name of the tracker.
        folder: folder with its files.
        runs: number of runs that have points.
        points: number of points that were sent now.
        left_out: files that were not sent, with the reason.
        show: command that shows the folder.
    """

    target: str
    folder: str
    runs: int
    points: int
    left_out: list[str]
    show: str

    def text(self) -> str:
        """Return the numbers and the command as text."""
        lines = [f"left out: {why}" for why in self.left_out]
        n = "no run has finished a task yet" if not self.runs else f"{self.runs} runs"
        lines.append(f"{self.target}: {n}, {self.points} new points in {self.folder}")
        return "\n".join([*lines, f"show them with: {self.show}"] if self.runs else lines)


def track(grid: Grid, target: str, folder: Path) -> Tracking:
    """Send the points of all runs that were not sent before; paths are relative.

    Args:
        grid: grid of the configuration.
        target: a name in `TARGETS`.
        folder: folder for the tracker's files.

    Raises:
        CdlError: the target's library is not installed, or the folder has a damaged record.
    """
    check_installed(target)
    curves_of = _CurvesOf(grid)
    runs = [tracked for tracked in map(curves_of, grid.runs) if tracked.curves]
    points = sum(send(tracked, target, folder) for tracked in runs)
    show = TARGETS[target].show.format(folder=folder, study=grid.config["name"])
    return Tracking(target, str(folder), len(runs), points, curves_of.left_out, show)


class _CurvesOf:
    """Reads the curves of runs from the files below the current folder."""

    def __init__(self, grid: Grid) -> None:
        self._grid, self._states = grid, States.of_grid(grid)
        self._running = started() if at_work() else set()
        self.left_out: list[str] = []

    def __call__(self, run: Run) -> TrackedRun:
        """Return a run with the points that its files have."""
        curves, by_output = _Curves(dict), self._states.jobs.by_output
        files, start = self._grid.files(self._grid.trained(run)), 0
        for task in range(run.n_tasks):
            job = by_output[files.task(task).losses]
            epochs = self._finished(job, start, curves) or self._unfinished(job, start, curves)
            for epoch in range(start, start + epochs):
                curves["training/task"][epoch] = task
            if not epochs:
                break
            start += epochs
        self._add_accuracies(by_output[self._grid.files(run).results], curves)
        about = {"dataset": run.dataset, **specification(self._grid, run).to_json()}
        return TrackedRun(self._grid.config["name"], run.folder, about, curves)

    def _finished(self, job: Job, start: int, curves: _Curves) -> int:
        """Add the losses of a finished task that begins at an epoch; return its epochs."""
        path = str(job.outputs["losses"])
        if not self._is_done(job, path):
            return 0
        losses = pd.read_csv(path)
        for row in losses.to_dict("records"):
            epoch = start + int(row["epoch"])
            curves[f"loss/{row['part']}"][epoch] = float(row["value"])
            curves["training/learning_rate"][epoch] = float(row["learning_rate"])
        return int(losses["epoch"].max()) + 1

    def _unfinished(self, job: Job, start: int, curves: _Curves) -> int:
        """Add the losses in the log of a running task; return the number of epochs so far."""
        log, epochs = Path(job.log), 0
        if not self._running & set(flat(job.outputs)) or not log.is_file():
            return 0
        for text, _, parts in _EPOCH.findall(log.read_text(errors="replace")):
            words, epochs = parts.split(), int(text)
            values = dict(zip(words[::2], map(float, words[1::2]), strict=True))
            for part, value in {**values, "total": sum(values.values())}.items():
                curves[f"loss/{part}"][start + epochs - 1] = value
        return epochs

    def _add_accuracies(self, job: Job, curves: _Curves) -> None:
        """Add the accuracies of an evaluated run in percent, after each of its tasks."""
        if not self._is_done(job):
            return
        matrix = self._states.read(job.records[0].path)["matrix"]
        for tasks, line in enumerate(matrix, start=1):
            curves["accuracy/average"][tasks] = sum(line[:tasks]) / tasks
            for task, accuracy in enumerate(line[:tasks], start=1):
                curves[f"accuracy/task{task}"][tasks] = accuracy

    def _is_done(self, job: Job, *files: str) -> bool:
        """Return whether a job is done and its files, or those given, are as recorded."""
        state = self._states.checked(job, *files)
        if state.name == DAMAGED:
            self.left_out.append(state.what)
        return state.name == DONE
