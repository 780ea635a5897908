"""Runs of a grid in process: the jobs that the workflow would run, called one by one."""

from functools import reduce
from pathlib import Path

import pandas as pd
import yaml
from caches import needs, target_queries
from configuration import merge, resolve
from grid import Grid

from cdl import artifacts
from cdl.evaluation import evaluate_run
from cdl.targets import write_queries, write_targets, write_test_queries
from cdl.task import learn_task

ROOT = Path(__file__).parent.parent


def make_grid(changes):
    files = (ROOT / "config" / "default.yaml", ROOT / "config" / "test" / "tiny.yaml")
    config, tiny = (yaml.safe_load(file.read_text()) for file in files)
    cpu = {"compute": {"device": "cpu"}}  # what is identical bit by bit is so there
    return Grid(resolve(reduce(merge, (config, tiny, cpu, changes))))


class Lab:
    """A grid, its inputs, and a folder for what its jobs write."""

    def __init__(self, grid, inputs, folder):
        self.grid, self.inputs, self.folder = grid, inputs, folder
        self.device = grid.config["compute"]["device"]
        self.states = {"states": str(folder / "state"), "save_minutes": 0.0}

    def run(self, **fields):
        return next(r for r in self.grid.runs if all(getattr(r, k) == v for k, v in fields.items()))

    def student(self, kd):
        return next(r for r in self.grid.runs if r.distiller.name == kd and r.role == "student")

    def checkpoint(self, run, task):
        return str(self.folder / run.folder / f"task{task}" / "learner.safetensors")

    def backbone(self, name):
        return str(self.inputs / f"{name}.safetensors")

    def queries(self, cache, task):
        """Path of the cached queries of a task or of the test views, made at the first call."""
        if cache is None:
            return None
        path = self.folder / Path(cache.folder).name / f"{task}.safetensors"
        if not path.exists():
            given = {"data": str(self.inputs / "data"), "backbone": self.backbone(cache.backbone)}
            given["device"] = self.device
            if task == "test":
                write_test_queries(spec=cache.spec, output=str(path), **given)
            else:
                write_queries(
                    spec=cache.spec, task=task, output=str(path), limit_gb=1, **given, **self.states
                )
        return str(path)

    def targets(self, run, cache, task):
        if cache is None:
            return None
        path = self.folder / cache.folder / f"task{task}" / "targets.safetensors"
        if not path.exists():
            write_targets(
                spec=cache.spec,
                task=task,
                data=str(self.inputs / "data"),
                backbone=self.backbone(cache.backbone),
                teacher=self.checkpoint(cache.teacher, task),
                queries=self.queries(target_queries(self.grid, run), task),
                output=str(path),
                limit_gb=1,
                device=self.device,
                **self.states,
            )
        return str(path)

    def learn(self, run, task):
        need, teacher = needs(self.grid, run), self.grid.teacher_of(run)
        output = self.checkpoint(run, task)
        learn_task(
            spec=self.grid.spec(run),
            task=task,
            data=str(self.inputs / "data"),
            backbones={name: self.backbone(name) for name in need.backbones},
            previous=self.checkpoint(run, task - 1) if task else None,
            queries=self.queries(need.queries, task),
            teacher=self.checkpoint(teacher, task) if need.teacher else None,
            teacher_spec=self.grid.spec(teacher) if teacher else None,
            teacher_queries=self.queries(need.teacher_queries, task),
            targets=self.targets(run, need.targets, task),
            device=self.device,
            capture=self.grid.config["compute"]["capture"],
            output=output,
            losses=output.replace("learner.safetensors", "losses.csv"),
            **self.states,
        )

    def learn_all(self, run):
        teacher = self.grid.teacher_of(run)
        for learner in (teacher, run) if teacher else (run,):
            for task in range(run.n_tasks):
                self.learn(learner, task)

    def evaluate(self, run):
        need, folder = needs(self.grid, run), self.folder / run.folder
        evaluate_run(
            spec=self.grid.spec(run),
            checkpoints=[self.checkpoint(run, task) for task in range(run.n_tasks)],
            data=str(self.inputs / "data"),
            backbones={name: self.backbone(name) for name in need.test_backbones},
            queries={c.backbone: self.queries(c, "test") for c in need.test_queries},
            teacher_query=run.mapped_query,
            images_per_class=self.grid.config["datasets"][run.dataset]["test_images_per_class"],
            results=str(folder / "results.json"),
            predictions=str(folder / "predictions.parquet"),
            states=self.states["states"],
            device=self.device,
        )
        results = artifacts.read_json(folder / "results.json")
        return results, pd.read_parquet(folder / "predictions.parquet")
