"""Runs of a grid in process: the jobs that the workflow would run, called one by one."""

from dataclasses import replace
from functools import reduce
from pathlib import Path

import pandas as pd
import yaml

from cdl.data.packing import prepare
from cdl.evaluation.evaluate import evaluate_run
from cdl.evaluation.inputs import EvaluationInputs
from cdl.runtime import artifacts
from cdl.runtime.jobs import Execution
from cdl.study.configuration import merge, resolve
from cdl.study.grid import Grid
from cdl.study.inputs import aligning, evaluating, learning
from cdl.study.specifications import specification
from cdl.training.align_task import AlignInputs, AlignSpecs, align_task
from cdl.training.answered import write_answers
from cdl.training.targets import TargetInputs, write_queries, write_targets, write_test_queries
from cdl.training.task import TaskInputs, learn_task

ROOT = Path(__file__).parents[2]


def make_grid(changes):
    files = (ROOT / "config" / "digits.yaml", ROOT / "config" / "test" / "tiny.yaml")
    config, tiny = (yaml.safe_load(file.read_text()) for file in files)
    cpu = {"compute": {"device": "cpu"}}  # what is identical bit by bit is so there
    return Grid(resolve(reduce(merge, (config, tiny, cpu, changes))))


class Lab:
    """A grid, its inputs, and a folder for what its jobs write."""

    def __init__(self, grid, inputs, folder):
        self.grid, self.inputs, self.folder = grid, inputs, folder
        compute = grid.config["compute"]
        self.execution = Execution(
            device=compute["device"],
            capture=compute["capture"],
            limit_gb=1,
            states=str(folder / "state"),
            save_minutes=0.0,
        )

    def run(self, **fields):
        return next(r for r in self.grid.runs if all(getattr(r, k) == v for k, v in fields.items()))

    def student(self, kd):
        return next(r for r in self.grid.runs if r.distiller.name == kd and r.role == "student")

    def spec(self, run):
        return specification(self.grid, run)

    @property
    def data(self):
        return str(self.inputs / "data")

    def path(self, path):
        """Path in the lab's folder of a file below the grid's results."""
        return str(self.folder / Path(path).relative_to(self.grid.layout.root))

    def trained(self, run, task):
        """Artifact of a run before alignment."""
        return self.path(self.grid.files(self.grid.trained(run)).task(task).learner)

    def checkpoint(self, run, task):
        """Artifact of a run that is evaluated, after alignment if its heads are aligned."""
        return self.path(self.grid.checkpoint(run, task))

    def backbone(self, name):
        return str(self.inputs / f"{name}.safetensors")

    def unlabelled(self, spec, dataset):
        """Pack the unlabelled images of a specification once; return their folder or None."""
        folder = self.folder / "unlabelled"
        if spec.unlabelled is None:
            return None
        if not folder.exists():
            prepare(folder, **self.grid.unlabelled_source(dataset))
        return str(folder)

    def queries(self, cache, task):
        """Path of the cached queries of a task or of the test views, made at the first call."""
        if not cache:
            return None
        cache = cache if task == "test" else cache[task]
        path = str(self.folder / Path(cache.folder).name / f"{task}.safetensors")
        if not Path(path).exists():
            backbone, how = self.backbone(cache.backbone), {"execution": self.execution}
            if task == "test":
                write_test_queries(cache.spec, self.data, backbone, path, **how)
            else:
                how["unlabelled"] = self.unlabelled(cache.spec, cache.dataset)
                write_queries(cache.spec, task, self.data, backbone, path, **how)
        return path

    def targets(self, need, task):
        """Path of the teacher's targets that jobs need, made at the first call."""
        if not need.taught.targets:
            return None
        cache = need.taught.targets[task]
        if (given := cache.spec.answers) is not None:
            file, path = self.grid.answers[given.name]["answers"], self.folder / cache.path(task)
            write_answers(cache.spec, task, self.data, file, path, execution=self.execution)
            return str(path)
        path = self.path(cache.path(task))
        if not Path(path).exists():
            inputs = TargetInputs(
                data=self.data,
                backbone=self.backbone(cache.backbone),
                teacher=self.checkpoint(cache.teacher, task),
                queries=self.queries(need.taught.target_queries, task),
                unlabelled=self.unlabelled(cache.spec, cache.dataset),
            )
            write_targets(cache.spec, task, inputs, path, execution=self.execution)
        return path

    def common_inputs(self, run, need, task):
        """Inputs of both kinds of jobs on a task of a run."""
        taught, teacher = need.taught, self.grid.teacher_of(run)
        return {
            "data": self.data,
            "backbones": {name: self.backbone(name) for name in need.backbones},
            "teacher": self.checkpoint(teacher, task) if taught.teacher else None,
            "teacher_queries": self.queries(taught.queries, task),
            "targets": self.targets(need, task),
            "unlabelled": self.unlabelled(self.spec(run), run.dataset),
        }

    def task_inputs(self, run, task):
        """Inputs of the job that trains a run, see `Grid.trained`."""
        run = self.grid.trained(run)
        need = learning(self.grid, run)
        (queries,) = need.queries or [()]
        return TaskInputs(
            **self.common_inputs(run, need, task),
            previous=self.checkpoint(run, task - 1) if task else None,
            queries=self.queries(queries, task),
        )

    def align_inputs(self, run, task):
        need, drift = aligning(self.grid, run), self.spec(run).alignment.drift != "none"
        return AlignInputs(
            **self.common_inputs(run, need, task),
            trained=self.trained(run, task),
            previous=self.checkpoint(run, task - 1) if task else None,
            before=self.trained(run, task - 1) if task and drift else None,
            queries={caches[0].backbone: self.queries(caches, task) for caches in need.queries},
        )

    def learn(self, run, task):
        """Train a run on a task, and align its heads if they are aligned."""
        self.train(run, task)
        if run.aligned:
            self.align(run, task)

    def train(self, run, task):
        trained = self.grid.trained(run)
        teacher, output = self.grid.teacher_of(trained), self.trained(run, task)
        learn_task(
            self.spec(trained),
            task,
            self.task_inputs(run, task),
            output,
            output.replace("learner.safetensors", "losses.csv"),
            teacher_spec=self.spec(teacher) if teacher else None,
            execution=self.execution,
        )

    def align(self, run, task):
        inputs, output = self.align_inputs(run, task), self.checkpoint(run, task)
        align_task(self.align_specs(run), task, inputs, output, execution=self.execution)

    def align_specs(self, run):
        labelled = self.spec(run).labelled_by_teacher
        run_of_teacher = self.grid.teacher_of(run) if labelled else None
        teacher = self.spec(run_of_teacher) if run_of_teacher else None
        return AlignSpecs(self.spec(run), self.spec(self.grid.trained(run)), teacher)

    def learn_all(self, run):
        teacher = self.grid.teacher_of(run)
        for learner in (teacher, run) if teacher else (run,):
            for task in range(run.n_tasks):
                self.learn(learner, task)

    def evaluation_inputs(self, run, tasks=None):
        need = evaluating(self.grid, run)
        return EvaluationInputs(
            data=self.data,
            checkpoints=[self.checkpoint(run, task) for task in range(tasks or run.n_tasks)],
            backbones={name: self.backbone(name) for name in need.backbones},
            queries={c.backbone: self.queries(c, "test") for (c,) in need.queries},
        )

    def evaluate(self, run, tasks=None, unknown=False, **inputs):
        folder = self.folder / run.folder
        evaluate_run(
            self.spec(run),
            replace(self.evaluation_inputs(run, tasks), **inputs),
            str(folder / "results.json"),
            str(folder / "predictions.parquet"),
            images_per_class=self.grid.test_images_per_class(run.dataset),
            unknown=unknown,
            execution=self.execution,
        )
        results = artifacts.read_json(folder / "results.json")
        return results, pd.read_parquet(folder / "predictions.parquet")
