"""Hours of a whole configuration from measured rates: ours against the released recipe.

Rates come from a JSON of `steps.py` or are given one by one (`--rate ours.teacher=4741`, images per
second). Ours trains each teacher once, computes queries and targets once, and serves all
students; the recipe trains a teacher inside every row of a table and computes everything anew.
One measured case stands for all: methods and distillers cost about the same (see `methods.py`),
except those that compare block outputs, which run the teacher online. The recipe's steps take the
longer one of computing and of its input pipeline, which works beside.

    python benchmarks/grid_cost.py config/cifar100_methods.yaml --steps steps.json
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from cdl.data.order import sizes_of
from cdl.spec import images_of
from cdl.study.configuration import ConfigError, resolve
from cdl.study.grid import Grid
from cdl.study.inputs import Inputs, caches_in
from cdl.study.runs import Run
from cdl.study.specifications import specification

OURS = {
    "teachers": "ours.teacher",
    "queries": "ours.queries",
    "teacher targets": "ours.targets",
    "students": "ours.student",
    "students, teacher online": "ours.student_online",
    "evaluation": "ours.evaluation",
}
RECIPE = {
    "teachers": "recipe.teacher",
    "students": "recipe.student",
    "evaluation": "recipe.evaluation",
}


class Images:
    """How many images runs see: classes and images per class, where the configuration has none."""

    def __init__(self, grid: Grid, classes: int, train: int, test: int) -> None:
        self.grid, self.classes, self._train, self._test = grid, classes, train, test

    def train(self, run: Run) -> int:
        """Return views that a run learns from, all tasks and epochs."""
        spec = specification(self.grid, run)
        sizes = enumerate(self._sizes(run))
        views = sum(size * (images_of(spec, task) or self._train) for task, size in sizes)
        return views * spec.training.epochs

    def test_split(self, run: Run) -> int:
        """Return images of the test split that are used."""
        return self.classes * (self._of(run, "test_images_per_class") or self._test)

    def test(self, run: Run) -> int:
        """Return predictions of all stages: after task t, the classes of tasks 0..t."""
        sizes = self._sizes(run)
        seen = sum(sum(sizes[: t + 1]) for t in range(len(sizes)))
        return seen * self.test_split(run) // self.classes

    def _sizes(self, run: Run) -> list[int]:
        return sizes_of(specification(self.grid, run).stream.tasks, self.classes)

    def _of(self, run: Run, key: str) -> int | None:
        return self.grid.config["datasets"][run.dataset][key]


def ours(grid: Grid, images: Images) -> tuple[Counter, int]:
    """Return images by stage and the number of jobs."""
    total, caches, jobs, planned = Counter(), {}, 0, Inputs(grid)
    for run in {own.folder: own for own in map(grid.trained, grid.runs)}.values():
        inputs, views = planned.learning(run, run.n_tasks - 1), images.train(run)
        online = run.teacher is not None and "targets" not in inputs
        stage = "students, teacher online" if online else "students"
        total["teachers" if run.role == "teacher" else stage] += views
        jobs += run.n_tasks
        behind = planned.of(inputs["targets"]) if "targets" in inputs else {}
        for cache in (*caches_in(inputs), *caches_in(behind)):
            if cache.spec.kind == "queries":
                caches[cache.folder] = "queries", views, run.n_tasks
    for run in grid.runs:
        total["evaluation"] += images.test(run)
        jobs += 1 + run.n_tasks * run.aligned
        views, last = images.train(run), run.n_tasks - 1
        aligning = planned.aligning(run, last) if run.aligned else {}
        for inputs in (planned.learning(grid.trained(run), last), aligning):
            if targets := inputs.get("targets"):
                caches[targets.folder] = "teacher targets", views, run.n_tasks
        once = views // specification(grid, run).training.epochs
        for cache in aligning.get("queries", {}).values():
            caches[cache.folder] = "queries", once, run.n_tasks
        for cache in planned.evaluating(run)["queries"].values():
            caches[f"{cache.folder}/test"] = "queries", images.test_split(run), 1
    for stage, n, tasks in caches.values():
        total[stage] += n
        jobs += tasks
    return total, jobs


def released(grid: Grid, images: Images) -> Counter:
    """Return images by stage of a loop that trains a teacher for every row of its table."""
    total = Counter()
    for run in grid.runs:
        if run.role == "teacher":
            continue
        total["students"] += images.train(run)
        total["evaluation"] += images.test(run)
        if run.method not in grid.bounds:
            total["teachers"] += images.train(grid.teacher_of(run) or _teacher(grid, run))
    return total


def _teacher(grid: Grid, student: Run) -> Run:
    same = ("dataset", "method", "seed")
    return next(
        run
        for run in grid.runs
        if run.role == "teacher" and all(getattr(run, k) == getattr(student, k) for k in same)
    )


def rates_of(stages: list[dict[str, Any]], given: list[str]) -> dict[str, float]:
    """Return images per second by name, from rows of `steps.py` and single values."""
    rates = {}
    for row in stages:
        who, _, how = row["recipe"].partition(", ")
        suffix = "_online" if how == "online" else ""
        rates[f"{who}.{row['stage']}{suffix}"] = float(row["img/s"])
    for entry in given:
        name, _, value = entry.partition("=")
        rates[name] = float(value)
    return rates


def table(grid: Grid, images: Images, rates: dict[str, float], start_up: float) -> pd.DataFrame:
    """Return hours by stage; raise `ConfigError` if a rate is missing."""

    def hours(n: int, name: str) -> float:
        if not grid.cached and name in ("ours.teacher", "ours.student"):
            name = f"{name}_online"
        if n and name not in rates:
            raise ConfigError(f"--rate {name}=IMAGES_PER_SECOND is needed: {n} images of it")
        rate = rates.get(name, float("inf"))
        if name in ("recipe.teacher", "recipe.student"):
            rate = min(rate, rates.get("recipe.input", float("inf")))
        return n / rate / 3600

    n_ours, jobs = ours(grid, images)
    n_released = released(grid, images)
    rows: list[dict[str, Any]] = []
    for stage, name in OURS.items():
        theirs = RECIPE.get(stage)
        rows.append(
            {
                "stage": stage,
                "ours, images": n_ours[stage],
                "ours, h": hours(n_ours[stage], name),
                "recipe, images": n_released[stage] if theirs else 0,
                "recipe, h": hours(n_released[stage], theirs) if theirs else 0.0,
            }
        )
    start = {"stage": f"start-up of {jobs} jobs", "ours, images": 0, "recipe, images": 0}
    rows.append(start | {"ours, h": jobs * start_up / 3600, "recipe, h": 0.0})
    frame = pd.DataFrame(rows)
    frame.loc[len(frame)] = {"stage": "all", **frame.iloc[:, 1:].sum()}
    return frame


def main(given: list[str] | None = None) -> None:
    """Print the table of a configuration."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configuration", help="YAML file")
    parser.add_argument("--steps", help="JSON of steps.py")
    parser.add_argument("--rate", action="append", default=[], metavar="NAME=IMAGES_PER_SECOND")
    parser.add_argument("--start-up", type=float, default=4.0, help="seconds of a job, ours")
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--train", type=int, default=500, help="training images per class")
    parser.add_argument("--test", type=int, default=100, help="test images per class")
    args = parser.parse_args(given)
    grid = Grid(resolve(yaml.safe_load(Path(args.configuration).read_text())))
    if len(grid.config["grid"]["pairs"]) > 1:
        raise ConfigError("grid.pairs: the rates are one pair's; give a configuration with one")
    images = Images(grid, args.classes, args.train, args.test)
    stages = json.loads(Path(args.steps).read_text())["stages"] if args.steps else []
    frame = table(grid, images, rates_of(stages, args.rate), args.start_up)
    print(frame.to_markdown(index=False, floatfmt=("", ",.0f", ".2f", ",.0f", ".2f")))
    mine, theirs = (frame.iloc[-1][column] for column in ("ours, h", "recipe, h"))
    rows = sum(run.role == "student" for run in grid.runs)
    print(f"\n{rows} rows of a table; the recipe takes {theirs / mine:.1f} times as long")


if __name__ == "__main__":
    try:
        main()
    except ConfigError as error:
        sys.exit(f"benchmark: {error}")
