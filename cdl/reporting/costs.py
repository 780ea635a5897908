"""Costs of runs: time, operations, and their share of the teacher's cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from cdl.layout import measured_of
from cdl.reporting.names import names_of
from cdl.reporting.text import as_markdown
from cdl.runtime.artifacts import read_json
from cdl.runtime.benchmarks import read_benchmark, read_measured

COST = {
    "training_seconds": "wall-clock seconds of the jobs that train and align it, waiting included",
    "processor_seconds": "processor seconds of these jobs",
    "mean_load": "average load of these jobs, in percent of one core",
    "peak_memory_mb": "largest resident memory of any of these jobs, in MB",
    "gpu_seconds": "seconds during which these jobs held a GPU",
    "peak_gpu_memory_mb": "largest GPU memory that any of these jobs allocated, in MB",
    "images": "training views, summed over all epochs",
    "tflops": "10^12 operations of these jobs, computed from the models",
    "task_tflops": "tflops per task, on average",
    "teacher_tflops": "10^12 operations of all tasks of its teacher, and of the teacher's targets "
    "where these are computed once for all students",
    "students": "number of runs that share the cost of its teacher",
    "total_tflops": "tflops plus its share of teacher_tflops",
    "accuracy_per_tflop": "final average accuracy in percent divided by total_tflops",
}
_HEADINGS = {  # of the columns in cost.md
    "processor_seconds": "processor seconds",
    "tflops": "T, all tasks",
    "task_tflops": "T, per task",
    "teacher_tflops": "T, its teacher",
    "students": "students of the teacher",
    "total_tflops": "T, with share of teacher",
    "accuracy_per_tflop": "accuracy per T",
}
Work = Mapping[str, float]  # `work` in the record of a job, and its task


def cost_of(
    files: Sequence[str], work: Sequence[Work] = (), n_tasks: int | None = None
) -> dict[str, float]:
    """Return the columns of `COST` that do not depend on the teacher, NaN if unknown.

    Args:
        files: benchmark files of the jobs; their own measurements are in the same folders.
        work: of the jobs, see `work_of`.
        n_tasks: number of tasks; None: the number of jobs.
    """
    jobs = [read_benchmark(file) for file in files]
    logged = [read_measured(measured_of(file)) for file in files]
    nan = float("nan")
    pairs = list(zip(logged, jobs, strict=True))
    seconds = sum(own.seconds or job.seconds for own, job in pairs)
    computed = _sum([own.processor_seconds or job.processor_seconds for own, job in pairs])
    memory = [own.memory_mb or job.memory_mb for own, job in pairs]
    return {
        "training_seconds": round(seconds, 1),
        "processor_seconds": round(computed, 1),
        "mean_load": round(100 * computed / seconds, 1),
        "peak_memory_mb": max((mb for mb in memory if mb), default=nan),
        "gpu_seconds": _sum([job.gpu_seconds for job in logged]),
        "peak_gpu_memory_mb": max((m for job in logged if (m := job.gpu_memory_mb)), default=nan),
        "images": _sum([task["images"] for task in work]),
        "tflops": (tflops := _sum([task["operations"] / 1e12 for task in work])),
        "task_tflops": tflops / (n_tasks or len(files)),
    }


def work_of(records: Sequence[str]) -> list[Work]:
    """Return `work` and task in the records of jobs."""
    contents = map(read_json, records)
    return [{**record["work"], "task": record["task"]} for record in contents]


def with_teachers(
    cost: pd.DataFrame, results: pd.DataFrame, work: Mapping[str, Sequence[Work]]
) -> pd.DataFrame:
    """Add the columns of `COST` that depend on the teacher.

    A learner without a teacher has no share of one: its total is its own cost.

    Args:
        cost: columns of `cost_of`.
        results: the same runs, in the same order.
        work: the work of all jobs by the folder of the run.
    """
    cost = cost.copy()
    by_run = cost.set_index(results["run"])
    taught = results["teacher_run"] != ""
    pairs = results.loc[taught, ["run", "teacher_run"]].itertuples(index=False, name=None)
    targets: dict[str, float] = {}
    for run, teacher in pairs:
        tflops = _target_tflops(work.get(run, []), work.get(teacher, []))
        targets[teacher] = max(targets.get(teacher, 0.0), tflops)
    own = results["teacher_run"].map(by_run["tflops"])
    cost["teacher_tflops"] = own + results["teacher_run"].map(targets)
    cost["students"] = (
        results["teacher_run"].map(results["teacher_run"].value_counts()).where(taught)
    )
    share = (cost["teacher_tflops"] / cost["students"]).where(taught, 0.0)
    cost["total_tflops"] = cost["tflops"] + share
    cost["accuracy_per_tflop"] = results["final_average_accuracy"] / cost["total_tflops"]
    return cost


def markdown(results: pd.DataFrame, cost: pd.DataFrame, unmeasured: int = 0) -> str:
    """Return a Markdown table of mean costs over seeds, with all columns that have a value.

    Args:
        results: runs; those with equal names share a row.
        cost: of the same runs, from `with_teachers`.
        unmeasured: number of jobs without measurements of their own.
    """
    known = {column: name for column, name in _HEADINGS.items() if cost[column].notna().any()}
    values = cost[list(known)].assign(accuracy=results["final_average_accuracy"].to_numpy())
    names = pd.DataFrame(
        [{"dataset": row["dataset"], **names_of(row)} for row in results.to_dict("records")]
    )
    named = values.reset_index(drop=True).join(names)
    rows = [
        {name: str(mean[name]) for name in names}
        | {"accuracy (%)": f"{mean['accuracy']:.2f}"}
        | {head: "-" if pd.isna(mean[k]) else f"{mean[k]:.4g}" for k, head in known.items()}
        for mean in named.groupby([*names], sort=False).mean().reset_index().to_dict("records")
    ]
    deleted = (
        f" {unmeasured} jobs have no measurements of their own (they were deleted): their seconds, "
        "processor seconds and memory are Snakemake's samples."
    )
    note = (
        "Means over seeds. T: 10^12 operations, computed from the models. The share of the teacher "
        "is the cost of its tasks and of its targets, which are computed once, divided by the "
        "number of its students in this study. A learner without a teacher has no such share. "
        f"Processor seconds: of the jobs of all tasks.{deleted if unmeasured else ''}"
    )
    return as_markdown(rows, note)


def count_unmeasured(costs: Sequence[Sequence[str]]) -> int:
    """Return the number of jobs, by their benchmark files, without measurements of their own."""
    return sum(not Path(measured_of(file)).exists() for file in {f for own in costs for f in own})


def _target_tflops(student: Sequence[Work], teacher: Sequence[Work]) -> float:
    """Return the 10^12 operations of the teacher targets that a student read from a cache."""
    forward = {job["task"]: job["forward"] for job in teacher}
    return sum(job["answers"] * forward.get(job["task"], 0.0) / 1e12 for job in student)


def _sum(values: Sequence[float | None]) -> float:
    """Return the sum; NaN if any value is unknown."""
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else float("nan")
