"""What runs cost: seconds, energy, operations, and a share of what their teacher cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import pandas as pd

from cdl.runtime.artifacts import read_json
from cdl.runtime.benchmarks import read_benchmark, read_measured

COST = {
    "training_seconds": "seconds by the clock on the wall of all its tasks' jobs, waiting included",
    "processor_seconds": "seconds that processors computed for these jobs",
    "mean_load": "percent of one core that these jobs used while they ran",
    "peak_memory_mb": "largest resident memory of one of these jobs",
    "gpu_seconds": "seconds that these jobs had a GPU",
    "peak_gpu_memory_mb": "most that one of these jobs allocated on a GPU",
    "energy_wh": "Wh of these jobs as the machine tells: of their GPU, where they had it alone, "
    "and of the processors by their share of processor time; empty where it does not tell",
    "images": "views that they learnt from, of all epochs",
    "tflops": "10^12 operations of these jobs, computed from the models",
    "task_tflops": "of one of its tasks, on average",
    "teacher_tflops": "of all tasks of its teacher, and of its teacher's answers where these are "
    "computed once for all students",
    "teacher_energy_wh": "energy_wh of its teacher",
    "students": "runs that its teacher's cost is spread over",
    "total_tflops": "tflops with its share of its teacher's",
    "total_energy_wh": "energy_wh with its share of its teacher's",
    "accuracy_per_tflop": "final average accuracy in percent over total_tflops",
    "accuracy_per_wh": "final average accuracy in percent over total_energy_wh",
}
_SHOWN = {  # in the table for people
    "processor_seconds": "seconds",
    "tflops": "T, all tasks",
    "task_tflops": "T, a task",
    "teacher_tflops": "T, its teacher",
    "students": "students of it",
    "total_tflops": "T, with its share",
    "accuracy_per_tflop": "accuracy per T",
    "energy_wh": "Wh, all tasks",
    "teacher_energy_wh": "Wh, its teacher",
    "total_energy_wh": "Wh, with its share",
    "accuracy_per_wh": "accuracy per Wh",
}
Work = Mapping[str, float]  # of a task, as its record says it


class TaskFiles(Protocol):
    """Files of one task of a learner."""

    @property
    def learner(self) -> str:
        """Return the path of its artifact."""


class RunFiles(Protocol):
    """What is asked of whoever knows where the files of a run lie."""

    @property
    def results(self) -> str:
        """Return the path of its matrix, metrics and specification."""

    @property
    def predictions(self) -> str:
        """Return the path of the prediction for every test image."""

    def task(self, task: int) -> TaskFiles:
        """Return the files of a task."""


def cost_of(files: Sequence[str], work: Sequence[Work] = ()) -> dict[str, float]:
    """Return the columns of `COST` that are a run's own, NaN if unknown.

    Args:
        files: benchmark files of its tasks, with the jobs' logs beside them.
        work: of its tasks, see `work_of`.
    """
    jobs = [read_benchmark(file) for file in files]
    said = [read_measured(Path(file).with_suffix(".log")) for file in files]
    nan = float("nan")
    seconds = sum(job.seconds for job in jobs)
    both = list(zip(said, jobs, strict=True))
    computed = _sum([own.processor_seconds or job.processor_seconds for own, job in both])
    memory = [own.memory_mb or job.memory_mb for own, job in both]
    return {
        "training_seconds": round(seconds, 1),
        "processor_seconds": round(computed, 1),
        "mean_load": round(100 * computed / seconds, 1),
        "peak_memory_mb": max((mb for mb in memory if mb), default=nan),
        "gpu_seconds": _sum([job.gpu_seconds for job in said]),
        "peak_gpu_memory_mb": max((m for job in said if (m := job.gpu_memory_mb)), default=nan),
        "energy_wh": _sum([job.energy_wh for job in said]),
        "images": _sum([task["images"] for task in work]),
        "tflops": (tflops := _sum([task["operations"] / 1e12 for task in work])),
        "task_tflops": tflops / len(files),
    }


def work_of(files: RunFiles, n_tasks: int) -> list[Work]:
    """Return what the records of a run's tasks say of `work`; nothing if an older one does not."""
    records = [Path(files.task(t).learner).with_suffix(".json") for t in range(n_tasks)]
    found = [read_json(record).get("work") for record in records]
    return [work for work in found if work] if all(found) else []


def with_teachers(
    cost: pd.DataFrame, results: pd.DataFrame, work: Mapping[str, Sequence[Work]]
) -> pd.DataFrame:
    """Return costs with the columns of `COST` that concern a run's teacher.

    A learner without a teacher has no share of one, so that its total is its own.

    Args:
        cost: columns of `cost_of`.
        results: the same runs.
        work: of the tasks of every run, by its folder.
    """
    cost = cost.copy()
    by_run = cost.set_index(results["run"])
    taught = results["teacher_run"] != ""
    pairs = results.loc[taught, ["run", "teacher_run"]].itertuples(index=False, name=None)
    answered: dict[str, float] = {}
    for run, teacher in pairs:
        tflops = _answers(work.get(run, []), work.get(teacher, []))
        answered[teacher] = max(answered.get(teacher, 0.0), tflops)
    own = results["teacher_run"].map(by_run["tflops"])
    cost["teacher_tflops"] = own + results["teacher_run"].map(answered)
    cost["teacher_energy_wh"] = results["teacher_run"].map(by_run["energy_wh"])
    cost["students"] = (
        results["teacher_run"].map(results["teacher_run"].value_counts()).where(taught)
    )
    for name in ("tflops", "energy_wh"):
        share = (cost[f"teacher_{name}"] / cost["students"]).where(taught, 0.0)
        cost[f"total_{name}"] = cost[name] + share
    accuracy = results["final_average_accuracy"]
    cost["accuracy_per_tflop"] = accuracy / cost["total_tflops"]
    cost["accuracy_per_wh"] = accuracy / cost["total_energy_wh"]
    return cost


def markdown(named: pd.DataFrame, cost: pd.DataFrame, accuracy: pd.Series) -> str:
    """Return costs for people, means over seeds, with what is known of all runs.

    Args:
        named: what the same runs are called, columns of text; equal ones are one row.
        cost: of `with_teachers`.
        accuracy: final average accuracy, percent.
    """
    known = {column: name for column, name in _SHOWN.items() if cost[column].notna().any()}
    values = cost[list(known)].assign(accuracy=accuracy.to_numpy())
    means = values.groupby([named[column].to_numpy() for column in named], sort=False).mean()
    rows = [
        dict(zip(named.columns, key, strict=True))
        | {"accuracy (%)": f"{row['accuracy']:.2f}"}
        | {name: "-" if pd.isna(row[k]) else f"{row[k]:.4g}" for k, name in known.items()}
        for key, row in zip(means.index, means.to_dict("records"), strict=True)
    ]
    absent = "" if "energy_wh" in known else " No machine told the energy of all its jobs."
    note = (
        "Means over seeds. T: 10^12 operations, computed from the models; a share of the teacher's "
        "is that of its own tasks and of its answers, which are computed once, over all students "
        "that it has here. A learner without a teacher has no share of one. Seconds are of "
        f"processors, of all tasks' jobs.{absent}"
    )
    return pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True) + f"\n\n{note}\n"


def _answers(
    student: Sequence[Mapping[str, float]], teacher: Sequence[Mapping[str, float]]
) -> float:
    """Return the 10^12 operations of the teacher's answers that a student read from a cache."""
    tasks = zip(student, teacher, strict=False)
    return sum(own["answers"] * theirs["forward"] / 1e12 for own, theirs in tasks)


def _sum(values: Sequence[float | None]) -> float:
    """Return a sum, NaN unless all is known."""
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else float("nan")
