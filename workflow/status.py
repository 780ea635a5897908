"""What of a configuration is done, running, failed or missing, and how long the rest may take.

Known from files: outputs and the specification in them, logs, benchmarks, and Snakemake's markers
of started jobs. A job that died before it could open its log counts as missing, and a started one
as running while any process of Snakemake works in the folder on this machine. Whether finished
files are up to date in every respect, only `snakemake -n` says.
"""

import argparse
import base64
import json
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from statistics import mean
from typing import Any

import psutil
from caches import Cache, needs, target_queries
from configuration import ConfigError, merge, read, resolve
from grid import Grid, Run

STATES = ("done", "running", "failed", "missing")
LEARNER = ("learner.json", "learner.safetensors", "losses.csv")
PACKED = ("manifest.json", "train.pixels", "train.parquet", "test.pixels", "test.parquet")
ERROR = re.compile(r"^\S+ \S+ ERROR \S+: (.*)", re.MULTILINE)


@dataclass(frozen=True)
class Job:
    """A job: the files it leaves, the record first, and what that record must say.

    Attributes:
        rule: of the workflow.
        outputs: paths; the first one is JSON.
        log: path.
        record: canonical JSON of entries of the first output.
        alike: what jobs of the rule that take as long have in common, the widest first.
    """

    rule: str
    outputs: tuple[Path, ...]
    log: Path
    record: str = "{}"
    alike: tuple[str, ...] = ()

    @property
    def benchmark(self) -> Path:
        """Snakemake's record of its seconds, written when it succeeds."""
        return self.log.with_suffix(".tsv")


def canonical(value: Any) -> str:
    """Return a value as JSON, equal for equal values."""
    return json.dumps(value, sort_keys=True)


def jobs_of(grid: Grid, run: Run) -> Iterator[Job]:
    """Yield all jobs that a cell of the tables waits for, but those of its teacher's run."""
    need = needs(grid, run)
    data, folder = Path(grid.data(run.dataset)), Path(grid.root, run.folder)
    yield Job("prepare_dataset", tuple(data / n for n in PACKED), data / "prepare_dataset.log")
    for name in sorted({run.backbone, run.query, run.teacher, run.teacher_query} - {None}):
        path = Path(grid.backbone(name))
        yield Job("fetch_backbone", (path.with_suffix(".json"), path), path.with_suffix(".log"))
    spec = {"learner": grid.spec(run)}
    alike = (run.dataset, run.role, run.method.label, run.distiller.label)
    guide = target_queries(grid, run) if need.targets else None
    for task in range(run.n_tasks):
        for queries in (need.queries, need.teacher_queries, guide):
            yield from _cache("queries", queries, f"task{task}")
        yield from _cache("teacher_targets", need.targets, f"task{task}/targets")
        place = folder / f"task{task}"
        paths = tuple(place / name for name in LEARNER)
        yield Job(run.rule, paths, place / f"{run.rule}.log", canonical(spec), alike)
    for queries in need.test_queries:
        yield from _cache("test_queries", queries, "test")
    spec["test_images_per_class"] = grid.config["datasets"][run.dataset]["test_images_per_class"]
    paths = (folder / "results.json", folder / "predictions.parquet")
    yield Job("evaluate", paths, folder / "evaluate.log", canonical(spec), alike)


def _cache(rule: str, cache: Cache | None, name: str) -> Iterator[Job]:
    """Yield the job that makes one file of a cache, if there is one."""
    if cache is not None:
        json_, tensors, log = (
            Path(cache.folder, name + end) for end in (".json", ".safetensors", ".log")
        )
        alike = (cache.dataset, cache.backbone)
        yield Job(rule, (json_, tensors), log, canonical({"spec": cache.spec}), alike)


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
    if marked & set(map(str, job.outputs)):
        return ("running", "") if alive else ("failed", f"interrupted; see {job.log}")
    if all(path.is_file() for path in job.outputs):
        try:
            made, wanted = json.loads(job.outputs[0].read_text()), json.loads(job.record)
            same = {key: made[key] for key in wanted} == wanted
        except (ValueError, KeyError, TypeError):
            return "failed", f"{job.outputs[0]} is damaged; delete it"
        return ("done", "") if same else ("missing", "made with other values")
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
        header, values = job.benchmark.read_text().splitlines()[:2]
        return float(dict(zip(header.split("\t"), values.split("\t"), strict=True))["s"])
    except (OSError, ValueError, KeyError):
        return None


def time_left(jobs: dict[Job, tuple[str, str]], cores: int) -> str:
    """Guess from the most similar finished jobs what the others take."""
    left = [job for job, (state, _) in jobs.items() if state != "done"]
    if not left:
        return "nothing is left to do but tables and figures"

    def kinds(job: Job) -> list[tuple[str, ...]]:
        return [(job.rule, *job.alike[:n]) for n in range(len(job.alike), -1, -1)]

    took = defaultdict(list)
    for job in jobs.keys() - set(left):
        seconds = seconds_of(job)
        for kind in kinds(job) if seconds is not None else ():
            took[kind].append(seconds)
    guesses = [
        next((mean(took[kind]) for kind in kinds(job) if kind in took), None) for job in left
    ]
    unknown = {job.rule for job, guess in zip(left, guesses, strict=True) if guess is None}
    known = [guess for guess in guesses if guess is not None]
    if not known:
        return f"time left: not known yet for {len(left)} jobs; nothing like them has finished"
    minutes, least = sum(known) / 60, "at least " if unknown else ""
    text = f"time left: {least}{minutes:.1f} min for {len(left)} jobs, "
    text += f"{least}{minutes / cores:.1f} min if always {cores} are at work"
    return f"{text}; not known yet for {', '.join(sorted(unknown))}" if unknown else text


def report(grid: Grid, cores: int) -> Iterator[str]:
    """Yield the lines of the answer."""
    marked = started()
    alive = bool(marked) and at_work()
    jobs: dict[Job, tuple[str, str]] = {}
    cells, unfinished = Counter(), []
    for run in grid.runs:
        own = list(jobs_of(grid, run))
        jobs |= {job: state_of(job, marked, alive) for job in own if job not in jobs}
        states = Counter(jobs[job][0] for job in own)
        cell = next((s for s in ("failed", "running", "missing") if states[s]), "done")
        cells[cell] += 1
        if cell != "done":
            unfinished.append(f"{cell:<8} {run.folder}: {states['done']} of {len(own)} jobs done")
    totals = Counter(state for state, _ in jobs.values())
    yield f"{grid.config['name']}: {len(grid.runs)} cells, {len(jobs)} jobs"
    yield from (f"{state:<8} {cells[state]} cells, {totals[state]} jobs" for state in STATES)
    yield from unfinished
    for job, (_, note) in jobs.items():
        if note:
            yield f"  {job.rule} of {job.outputs[0]}: {note}"
    if marked and not alive:
        yield (
            "jobs were started, but no snakemake works in this folder on this machine: if none "
            "does on another one, they were killed; `snakemake --unlock`, then start it as before"
        )
    yield time_left(jobs, cores)


def main() -> int:
    """Read the configuration as Snakemake does, later files over earlier ones, and report."""
    parser = argparse.ArgumentParser(prog="python -m cdl status", description=__doc__)
    parser.add_argument("config", nargs="+", help="configuration and overlays, as --configfile")
    parser.add_argument("--directory", default=".", help="folder that holds results/")
    parser.add_argument("--cores", type=int, default=1, help="jobs at a time, for the time left")
    options = parser.parse_args()
    if options.cores < 1:
        parser.error(f"--cores: {options.cores}; give 1 or more")
    try:
        config = reduce(merge, map(read, options.config))
        os.chdir(options.directory)
        print(*report(Grid(resolve(config)), options.cores), sep="\n")
    except (ConfigError, OSError) as error:
        print(f"cdl: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
