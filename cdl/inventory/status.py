"""Show which jobs of a configuration are done, running, failed or missing, and the time left.

Based on files: outputs and their records (see `cdl.inventory.state`), logs, benchmarks, and
Snakemake's markers of started jobs. A job that failed before it opened its log counts as missing;
a started job counts as running while any Snakemake process runs in the folder on this machine.
Only `snakemake -n` determines whether finished files are up to date in every respect.
"""

import base64
import csv
import os
import re
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from statistics import mean

import psutil

from cdl.inventory.images import affected, changes, outdated_data
from cdl.inventory.naming import nothing_here
from cdl.inventory.state import DAMAGED, DONE, OUTDATED, State, States, name_of
from cdl.layout import is_large
from cdl.runtime.benchmarks import read_benchmark
from cdl.runtime.errors import CdlError
from cdl.runtime.shown import Shown
from cdl.study.configuration import ConfigError
from cdl.study.contents import UserFiles
from cdl.study.grid import Grid
from cdl.study.jobs import CACHES, OPTIONAL, Job, Jobs, flat
from cdl.study.learning_jobs import LearningJobs
from cdl.study.report_jobs import ReportJobs

STATES = ("done", "running", "failed", "missing")
SHOWN = 5  # unfinished cells, and notes about jobs, that are shown without --all
ERROR = re.compile(r"^\S+ \S+ ERROR \S+: (.*)", re.MULTILINE)
STOPPED = re.compile(r"^\S+ \S+ WARNING \S+: (interrupted by|stopped by)", re.MULTILINE)
_INDENT = "  "  # of notes about a job
LOCKS = Path(".snakemake", "locks")


def started() -> set[str]:
    """Return the outputs of jobs that Snakemake has started and that have not ended."""
    root = Path(".snakemake", "incomplete")
    names = ("".join(f.relative_to(root).parts) for f in root.rglob("*") if f.is_file())
    return {base64.urlsafe_b64decode(name.replace("@", "")).decode() for name in names}


def at_work() -> bool:
    """Return whether a Snakemake process, or one of its jobs, runs in this folder."""
    return bool(workers())


def workers() -> list[psutil.Process]:
    """Return the processes of Snakemake and its jobs in this folder, with their `create_time`."""
    here = os.getcwd()
    return [
        process
        for process in psutil.process_iter(["cwd", "cmdline", "create_time"], ad_value=[])
        if process.pid != os.getpid()
        and process.info["cwd"] == here
        and any("snakemake" in word for word in process.info["cmdline"])
    ]


def first_worker() -> str:
    """Return which run is at work in this folder, as the beginning of a sentence; empty if none."""
    if not (processes := workers()):
        return ""
    first = min(processes, key=lambda process: process.info["create_time"])
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(first.info["create_time"]))
    return f"another run is at work in this folder (process {first.pid}, since {since})"


def progress_of(job: Job, state: State, marked: set[str], alive: bool) -> tuple[str, str]:
    """Return one of `STATES`, and a note or an empty string.

    Args:
        job: the job; its log and benchmark are read.
        state: state of its outputs.
        marked: outputs of started jobs.
        alive: whether Snakemake runs in this folder.
    """
    if marked & set(flat(job.outputs)):
        return ("running", "") if alive else ("missing", f"interrupted; see {job.log}")
    if state.name == DONE:
        return "done", ""
    if state.name == DAMAGED:
        return "failed", state.what
    if state.name == OUTDATED:
        return "missing", f"made with other values ({state.why}); the next run overwrites it"
    log, benchmark = Path(job.log), Path(job.files.benchmark)
    if not log.is_file() or benchmark.is_file() and _newer(benchmark, log):
        return "missing", ""  # never started, or its outputs were deleted
    if reason := reason_in(log):
        return "failed", f"{reason}; see {job.log}"
    if STOPPED.search(log.read_text(errors="replace")):
        return "missing", f"interrupted; see {job.log}"
    return "failed", f"ended without an error message; see {job.log}"


def reason_in(log: Path) -> str:
    """Return the last error message in the log of a job; empty without one."""
    errors = ERROR.findall(log.read_text(errors="replace")) if log.is_file() else []
    return str(errors[-1]) if errors else ""


def _newer(path: Path, other: Path) -> bool:
    return path.stat().st_mtime >= other.stat().st_mtime


def seconds_of(job: Job) -> float | None:
    """Return the duration of a finished job in seconds, from its benchmark; None without one."""
    try:
        return read_benchmark(job.files.benchmark).seconds
    except CdlError:
        return None


def time_left(jobs: dict[Job, tuple[str, str]], cores: int) -> str:
    """Return the estimated time left as text, from the durations of the most similar jobs."""
    left = [job for job, (state, _) in jobs.items() if state != "done"]
    if not left:
        return "all runs are finished"

    def kinds(job: Job) -> list[tuple[str, ...]]:
        return [(job.rule, *job.alike[:n]) for n in range(len(job.alike), -1, -1)]

    took: defaultdict[tuple[str, ...], list[float]] = defaultdict(list)
    for job in jobs:  # also those that have finished before
        seconds = seconds_of(job)
        if seconds is not None:
            for kind in kinds(job):
                took[kind].append(seconds)
    guesses = [
        next((mean(took[kind]) for kind in kinds(job) if kind in took), None) for job in left
    ]
    unknown = {job.rule for job, guess in zip(left, guesses, strict=True) if guess is None}
    known = [guess for guess in guesses if guess is not None]
    if not known:
        return f"time left: unknown for {len(left)} jobs; no similar job has finished"
    seconds, least = sum(known), "at least " if unknown else ""
    text = f"time left: {least}{_format_duration(seconds)} for {len(left)} jobs, "
    text += f"{least}{_format_duration(seconds / cores)} with {cores} at a time"
    return f"{text}; unknown for {', '.join(sorted(unknown))}" if unknown else text


def _reports_left(grid: Grid, learning: LearningJobs, resume: str) -> str:
    """Return whether the tables, figures and page of finished runs are made, as text."""
    every = [*ReportJobs(grid)]
    states = States(Jobs([*learning, *every]))
    reports = [job for job in every if job.rule not in OPTIONAL]
    left = [job for job in reports if states(job).name != DONE or _changed_since(job)]
    left = left or (reports if _has_others(grid) else [])
    if not left:
        return ", and their tables and figures are made"
    return f"; jobs of tables and figures that are left: {len(left)}; run `{resume}`"


def _changed_since(job: Job) -> bool:
    """Return whether an input of a finished job is newer than an output, as Snakemake decides."""
    timed = [path for path in flat(job.inputs) if not is_large(path) and Path(path).is_file()]
    made = min(Path(path).stat().st_mtime for path in flat(job.outputs))
    return any(Path(path).stat().st_mtime > made for path in timed)


def _has_others(grid: Grid) -> bool:
    """Return whether the table of runs has others than those of a grid."""
    with open(grid.layout.report.tables.results, newline="", errors="replace") as lines:
        runs = {row.get("run") for row in csv.DictReader(lines)}
    return runs != {grid.files(run).folder for run in grid.runs}


def _format_duration(seconds: float) -> str:
    return f"{ceil(seconds)} s" if seconds < 120 else f"{seconds / 60:.1f} min"


@dataclass(frozen=True, repr=False)
class Status(Shown):
    """The state of a configuration.

    Attributes:
        name: name of the configuration.
        cells: number of cells, by state.
        jobs: number of jobs, by state.
        unfinished: lines of text about unfinished cells.
        notes: lines of text about failed and outdated jobs.
        time_left: estimated time left, as text.
    """

    name: str
    cells: dict[str, int]
    jobs: dict[str, int]
    unfinished: list[str]
    notes: list[str]
    time_left: str

    def text(self, every: bool = False) -> str:
        """Return the status as text: totals and the first cells, or with `every` all of them."""
        of_jobs = [note for note in self.notes if note.startswith(_INDENT)]
        lines = [
            *(note for note in self.notes if not note.startswith(_INDENT)),
            f"{self.name}: {sum(self.cells.values())} cells, {sum(self.jobs.values())} jobs",
            *(f"{s:<8} {self.cells[s]} cells, {self.jobs[s]} jobs" for s in STATES),
            *_first(sorted(self.unfinished, key=_by_state), "cells", every),
            *_first(of_jobs, "jobs with a note", every),
            self.time_left,
        ]
        return "\n".join(lines)


def _first(lines: list[str], what: str, every: bool) -> list[str]:
    """Return all lines, or the first ones and how many are left out."""
    if every or len(lines) <= SHOWN:
        return lines
    return [*lines[:SHOWN], f"and {len(lines) - SHOWN} more {what}; --all shows a line for each"]


def _by_state(line: str) -> int:
    """Return the place of a cell's line: failed cells first, those without a job at last."""
    return ("failed", "running", "missing").index(line.split()[0])


def report(grid: Grid, cores: int, resume: str = "cdl run CONFIG") -> Status:
    """Return the status of a configuration; paths are relative to the current folder.

    A cell is done if its evaluation is done. Caches that no unfinished cell needs may be deleted
    and are not counted then.

    Args:
        grid: grid of the configuration.
        cores: number of parallel jobs, for the time left.
        resume: command that runs the configuration.
    """
    marked = started()
    alive = at_work()
    learning = LearningJobs(grid)
    every = Jobs(learning)
    states = States(every)
    again, changed = _changed_images(every, learning.user)
    jobs: dict[Job, tuple[str, str]] = {}
    cells: Counter[str] = Counter()
    unfinished: list[str] = []
    needed: set[Job] = set()

    def progress(job: Job) -> tuple[str, str]:
        if job in again:
            return "missing", ""
        state = states.checked(job) if job.rule == "evaluate" else states(job)
        return progress_of(job, state, marked, alive)

    for evaluation in every.of("evaluate"):
        behind = every.behind(evaluation)
        jobs |= {job: progress(job) for job in behind if job not in jobs}
        counts = Counter(jobs[job][0] for job in behind)
        cell = next((s for s in ("failed", "running", "missing") if counts[s]), "done")
        cell = "done" if jobs[evaluation][0] == "done" else cell
        cells[cell] += 1
        if cell != "done":
            needed |= {*behind}
            done = f"{counts['done']} of {len(behind)} jobs done"
            unfinished.append(f"{cell:<8} {name_of(evaluation)}: {done}")
    deleted = {
        job
        for job, state_and_note in jobs.items()
        if job.rule in CACHES and state_and_note == ("missing", "") and job not in needed
    }
    jobs = {job: jobs[job] for job in jobs if job not in deleted}
    totals = Counter(state for state, _ in jobs.values())
    left = time_left(jobs, cores)
    if cells.total() == cells["done"] and totals.total() == totals["done"]:
        left += _reports_left(grid, learning, resume)
    return Status(
        grid.config["name"],
        {state: cells[state] for state in STATES},
        {state: totals[state] for state in STATES},
        unfinished,
        [*_absent(grid), *changed, *_notes(jobs, "" if alive else resume)],
        left,
    )


def _notes(jobs: dict[Job, tuple[str, str]], resume: str) -> list[str]:
    """Return what is said of jobs, and with a command how to go on after an interruption."""
    notes = [
        f"{_INDENT}{job.rule} of {job.records[0].path}: {n}" for job, (_, n) in jobs.items() if n
    ]
    interrupted = resume and any("interrupted" in note for _, note in jobs.values())
    return [*notes, *([_how_to_resume(resume)] if interrupted else [])]


def _absent(grid: Grid) -> list[str]:
    """Return a line that there are no results here."""
    return [] if Path(grid.layout.root).is_dir() else [nothing_here(grid.config["name"])]


def _how_to_resume(resume: str) -> str:
    """Return what to do after a run was interrupted or killed."""
    if not any(LOCKS.glob("*")):
        return f"interrupted; resume with `{resume}`"
    return (
        "interrupted, and no run is at work in this folder on this machine: unless one runs on "
        f"another machine, remove its lock with `{resume} --unlock`, then resume with `{resume}`"
    )


def _changed_images(jobs: Jobs, user: UserFiles) -> tuple[set[Job], list[str]]:
    """Return the finished jobs that run again since examples have changed, and a line about it."""
    try:
        outdated = outdated_data(user)
        again = {job for job in affected(jobs, outdated) if _exists(job)}
    except ConfigError as error:
        return set(), [f"the examples cannot be compared with the packed ones: {error}"]
    n = len(again)
    would = f"{n} job{'s' * (n != 1)} would run again"
    return again, [
        f"examples of {user.data[name]['source'].get('path', name)} have changed since "
        f"({changes(user, name)}): {would}"
        for name in outdated
    ]


def _exists(job: Job) -> bool:
    return all(Path(path).is_file() for path in flat(job.outputs))
