"""Runs of a grid in process: the jobs that the workflow would run, called one by one."""

from functools import reduce
from pathlib import Path

import pandas as pd
import yaml

from cdl.data.packing import prepare
from cdl.evaluation.evaluate import evaluate_run
from cdl.runtime import artifacts
from cdl.runtime.jobs import Execution
from cdl.study.configuration import merge, resolve
from cdl.study.grid import Grid
from cdl.study.inputs import Cache, Inputs
from cdl.study.specifications import specification
from cdl.training.align_task import align_task
from cdl.training.answered import write_answers
from cdl.training.targets import write_queries, write_targets, write_test_queries
from cdl.training.task import learn_task

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
        self.planned = Inputs(grid)
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

    def unlabelled(self, dataset):
        """Pack the unlabelled images of a dataset once; return their folder."""
        folder = self.folder / "unlabelled"
        if not folder.exists():
            prepare(folder, **self.grid.unlabelled_source(dataset))
        return str(folder)

    def cache(self, cache):
        """Path of a cache, which is computed at the first call."""
        own = self.path(cache.path) if cache.teacher else None
        path = own or str(self.folder / cache.name / Path(cache.path).name)
        if Path(path).exists() and cache.rule != "answers":  # whose file a test may change
            return path
        read = self.arguments(self.planned.of(cache), cache.dataset)
        read["execution"] = self.execution
        if cache.rule == "answers":
            (read["answers"],) = read.pop("files")
            write_answers(cache.spec, cache.task, path, **read)
        elif cache.rule == "test_queries":
            write_test_queries(cache.spec, path, **read)
        elif cache.rule == "queries":
            write_queries(cache.spec, cache.task, path, **read)
        else:
            write_targets(cache.spec, cache.task, path, **read)
        return path

    def arguments(self, inputs, dataset):
        """Inputs of a job, as arguments with the lab's files; caches are computed."""
        return {name: self._argument(name, value, dataset) for name, value in inputs.items()}

    def _argument(self, name, value, dataset):
        match value:
            case Cache():
                return self.cache(value)
            case dict():
                return {key: self._argument(name, one, dataset) for key, one in value.items()}
            case list() if name == "checkpoints":
                return [self.path(one) for one in value]
            case list() if name == "unlabelled":
                return self.unlabelled(dataset)
            case list():
                return self.data if name == "data" else value
        if name.startswith("backbone"):
            return self.backbone(Path(value).stem.rpartition("-")[0])
        return self.path(value)

    def task_inputs(self, run, task):
        """Inputs of the job that trains a run, see `Grid.trained`."""
        run = self.grid.trained(run)
        return self.arguments(self.planned.learning(run, task), run.dataset)

    def align_inputs(self, run, task):
        return self.arguments(self.planned.aligning(run, task), run.dataset)

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
            output,
            output.replace("learner.safetensors", "losses.csv"),
            **self.task_inputs(run, task),
            teacher_spec=self.spec(teacher) if teacher else None,
            execution=self.execution,
        )

    def align(self, run, task):
        inputs, output = self.align_inputs(run, task), self.checkpoint(run, task)
        how = self.align_specs(run) | {"execution": self.execution}
        align_task(self.spec(run), task, output, **inputs, **how)

    def align_specs(self, run):
        """Specifications of the trained learner, and of the teacher that labels images."""
        labelled = self.spec(run).labelled_by_teacher
        teacher = self.grid.teacher_of(run) if labelled else None
        specs = {"trained_spec": self.spec(self.grid.trained(run))}
        return specs | ({"teacher_spec": self.spec(teacher)} if teacher else {})

    def learn_all(self, run):
        teacher = self.grid.teacher_of(run)
        for learner in (teacher, run) if teacher else (run,):
            for task in range(run.n_tasks):
                self.learn(learner, task)

    def evaluation_inputs(self, run, tasks=None):
        inputs = self.planned.evaluating(run, range(tasks or run.n_tasks))
        return self.arguments(inputs, run.dataset)

    def evaluate(self, run, tasks=None, unknown=False, **inputs):
        folder = self.folder / run.folder
        evaluate_run(
            self.spec(run),
            str(folder / "results.json"),
            str(folder / "predictions.parquet"),
            **self.evaluation_inputs(run, tasks) | inputs,
            images_per_class=self.grid.test_images_per_class(run.dataset),
            unknown=unknown,
            execution=self.execution,
        )
        results = artifacts.read_json(folder / "results.json")
        return results, pd.read_parquet(folder / "predictions.parquet")
