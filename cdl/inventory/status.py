"""What of a configuration is done, running, failed or missing, and how long the rest may take.

Known from files: outputs and the specification in them, logs, benchmarks, and Snakemake's markers
of started jobs. A job that died before it could open its log counts as missing, and a started one
as running while any process of Snakemake works in the folder on this machine. Whether finished
files are up to date in every respect, only `snakemake -n` says.
"""

import base64
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from statistics import mean
from typing import Any

import psutil

from cdl import EVALUATION
from cdl.runtime.artifacts import first_difference, read_json
from cdl.runtime.benchmarks import read_benchmark
from cdl.runtime.errors import CdlError
from cdl.study import layout
from cdl.study.grid import Grid
from cdl.study.inputs import CacheSpec, Inputs
from cdl.study.layout import JobFiles
from cdl.study.runs import Run
from cdl.study.specifications import specification

STATES = ("done", "running", "failed", "missing")
ERROR = re.compile(r"^\S+ \S+ ERROR \S+: (.*)", re.MULTILINE)


@dataclass(frozen=True)
class Job:
    """A job: the files it leaves, the record first, and what that record must say.

    Attributes:
        rule: of the workflow.
        outputs: paths; the first one is JSON.
        files: its log and benchmark.
        record: canonical JSON of entries of the first output.
        alike: what jobs of the rule that take as long have in common, the widest first.
    """

    rule: str
    outputs: tuple[str, ...]
    files: JobFiles
    record: str = "{}"
    alike: tuple[str, ...] = ()

    @property
    def log(self) -> Path:
        """The rule's log."""
        return Path(self.files.log)

    @property
    def benchmark(self) -> Path:
        """Snakemake's record of its seconds, written when it succeeds."""
        return Path(self.files.benchmark)


def canonical(value: Any) -> str:
    """Return a value as JSON, equal for equal values."""
    return json.dumps(value, sort_keys=True)


def jobs_of(inputs: Inputs, run: Run) -> Iterator[Job]:
    """Yield all jobs that a cell of the tables waits for, but those of its teacher's run."""
    grid, need = inputs.grid, inputs.of(run)
    packed, files = grid.packed(run.dataset), grid.files(run)
    rule = "prepare_dataset"
    for files_of in filter(None, (packed, grid.unlabelled(run.dataset))):
        yield Job(rule, tuple(files_of.outputs()), files_of.job(rule))
    for name in run.backbones:
        path = grid.backbone(name)
        fetching = layout.fetching(grid.backbone_name(name))
        yield Job("fetch_backbone", (layout.record_of(path), path), fetching)
    learner = specification(grid, run)
    alike = (run.dataset, run.role, run.method.label, run.distiller.label)
    for t in range(run.n_tasks):
        for queries in need.by_task:
            if queries:
                yield _queries("queries", queries[t], t)
        if need.targets:
            yield _targets(need.targets[t], t)
        task = files.task(t)
        spec = canonical({"learner": learner.until(t).to_json()})
        yield Job(run.rule, tuple(task.outputs()), task.job(run.rule), spec, alike)
    for cache in need.test_queries:
        yield _queries("test_queries", cache, "test")
    made = {
        "evaluation": EVALUATION,
        "learner": learner.to_json(),
        "test_images_per_class": grid.test_images_per_class(run.dataset),
    }
    outputs = (files.results, files.predictions)
    yield Job("evaluate", outputs, files.evaluation, canonical(made), alike)


def _queries(rule: str, cache: CacheSpec, part: int | str) -> Job:
    files = layout.caching(cache.folder, part)
    return _cache(rule, cache, layout.cached(cache.folder, part), files)


def _targets(cache: CacheSpec, task: int) -> Job:
    files = layout.RunFiles(cache.folder).task(task)
    return _cache("teacher_targets", cache, files.targets, files.job("teacher_targets"))


def _cache(rule: str, cache: CacheSpec, path: str, files: JobFiles) -> Job:
    """Return the job that makes one file of a cache."""
    outputs = (layout.record_of(path), path)
    record = canonical({"spec": cache.spec.to_json()})
    return Job(rule, outputs, files, record, (cache.dataset, cache.backbone))


def started() -> set[str]:
    """Return the outputs of jobs that Snakemake has started and not ended."""
    root = Path(".snakemake", "incomplete")
    names = ("".join(f.relative_to(root).parts) for f in root.rglob("*") if f.is_file())
    return {base64.urlsafe_b64decode(name.replace("@", "")).decode() for name in names}


def at_work() -> bool:
    """Whether a process of Snakemake, or one of its jobs, works in this folder."""
    here = os.getcwd()
    return any(
        process.info["cwd"] == here and any("snakemake" in word for word in process.info["cmdline"])
        for process in psutil.process_iter(["cwd", "cmdline"], ad_value=[])
        if process.pid != os.getpid()
    )


def state_of(job: Job, marked: set[str], alive: bool) -> tuple[str, str]:
    """Return the state of a job, and a note if there is more to say."""
    if marked & set(job.outputs):
        return ("running", "") if alive else ("failed", f"interrupted; see {job.log}")
    if all(Path(path).is_file() for path in job.outputs):
        try:
            made, wanted = read_json(job.outputs[0]), json.loads(job.record)
            made = {"evaluation": None, **made}  # which results of version 0.2 lack
            difference = first_difference({key: made[key] for key in wanted}, wanted)
        except CdlError as error:
            return "failed", str(error)
        except KeyError as error:
            return "failed", f"{job.outputs[0]} has no {error}; delete it and run again"
        if difference is None:
            return "done", ""
        key, before, now = difference
        return "missing", f"made with other values ({key} {before}, now {now}), overwritten next"
    if not job.log.is_file() or job.benchmark.is_file() and _newer(job.benchmark, job.log):
        return "missing", ""  # never started, or deleted after it was made
    reasons = ERROR.findall(job.log.read_text(errors="replace"))
    reason = reasons[-1] if reasons else "ended without a message"
    return "failed", f"{reason}; see {job.log}"


def _newer(path: Path, other: Path) -> bool:
    return path.stat().st_mtime >= other.stat().st_mtime


def seconds_of(job: Job) -> float | None:
    """Return the seconds that a finished job took, from Snakemake's benchmark file."""
    try:
        return read_benchmark(job.benchmark).seconds
    except CdlError:
        return None


def time_left(jobs: dict[Job, tuple[str, str]], cores: int) -> str:
    """Guess from the most similar finished jobs what the others take."""
    left = [job for job, (state, _) in jobs.items() if state != "done"]
    if not left:
        return "nothing is left to do but tables and figures"

    def kinds(job: Job) -> list[tuple[str, ...]]:
        return [(job.rule, *job.alike[:n]) for n in range(len(job.alike), -1, -1)]

    took: defaultdict[tuple[str, ...], list[float]] = defaultdict(list)
    for job in jobs.keys() - set(left):
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
        return f"time left: not known yet for {len(left)} jobs; nothing like them has finished"
    seconds, least = sum(known), "at least " if unknown else ""
    text = f"time left: {least}{_duration(seconds)} for {len(left)} jobs, "
    text += f"{least}{_duration(seconds / cores)} if always {cores} are at work"
    return f"{text}; not known yet for {', '.join(sorted(unknown))}" if unknown else text


def _duration(seconds: float) -> str:
    return f"{ceil(seconds)} s" if seconds < 120 else f"{seconds / 60:.1f} min"


@dataclass(frozen=True)
class Status:
    """The answer.

    name: of the configuration.
    cells: number of cells by state.
    jobs: number of jobs by state.
    unfinished: lines about cells that are not done.
    notes: lines about jobs of which there is more to say.
    time_left: in words.
    """

    name: str
    cells: dict[str, int]
    jobs: dict[str, int]
    unfinished: list[str]
    notes: list[str]
    time_left: str

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)

    def text(self) -> str:
        """Return it for people."""
        lines = [
            f"{self.name}: {sum(self.cells.values())} cells, {sum(self.jobs.values())} jobs",
            *(f"{s:<8} {self.cells[s]} cells, {self.jobs[s]} jobs" for s in STATES),
            *self.unfinished,
            *self.notes,
            self.time_left,
        ]
        return "\n".join(lines)


def report(grid: Grid, cores: int) -> Status:
    """Look at the files of all jobs; paths are relative to the current folder.

    Args:
        grid: what is asked for.
        cores: jobs at a time, for the time left.
    """
    marked = started()
    alive = bool(marked) and at_work()
    jobs: dict[Job, tuple[str, str]] = {}
    cells: Counter[str] = Counter()
    unfinished = []
    inputs = Inputs(grid)
    for run in grid.runs:
        own = list(jobs_of(inputs, run))
        jobs |= {job: state_of(job, marked, alive) for job in own if job not in jobs}
        states = Counter(jobs[job][0] for job in own)
        cell = next((s for s in ("failed", "running", "missing") if states[s]), "done")
        cells[cell] += 1
        if cell != "done":
            unfinished.append(f"{cell:<8} {run.folder}: {states['done']} of {len(own)} jobs done")
    totals = Counter(state for state, _ in jobs.values())
    notes = [f"  {job.rule} of {job.outputs[0]}: {n}" for job, (_, n) in jobs.items() if n]
    if marked and not alive:
        notes.append(
            "jobs were started, but no snakemake works in this folder on this machine: if none "
            "does on another one, they were killed; `snakemake --unlock`, then start it as before"
        )
    return Status(
        grid.config["name"],
        {state: cells[state] for state in STATES},
        {state: totals[state] for state in STATES},
        unfinished,
        notes,
        time_left(jobs, cores),
    )
