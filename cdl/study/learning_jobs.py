"""Jobs that prepare data, compute caches, train, evaluate and deploy."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from cdl import EVALUATION, layout
from cdl.data import FORMAT
from cdl.layout import record_of
from cdl.study.classifiers import classifying
from cdl.study.contents import UserFiles
from cdl.study.grid import Grid
from cdl.study.inputs import Cache, Files, Inputs, caches_in, names_in, paths
from cdl.study.jobs import Job, MadeFrom, Paths, Record
from cdl.study.runs import Run


def user_files(grid: Grid) -> UserFiles:
    """Return the user's files that the data and backbones of a grid are made from."""
    data = {grid.packed_name(name): grid.source(name) for name in grid.datasets}
    for name in grid.datasets:
        if (packed := grid.unlabelled(name)) and (source := grid.unlabelled_source(name)):
            data[Path(packed.folder).name] = source
    used = sorted({name for run in grid.runs for name in run.backbones})
    backbones = {grid.backbone_name(name): grid.backbone_source(name) for name in used}
    return UserFiles(data, backbones)


class LearningJobs:
    """The jobs up to the evaluation and the export of all runs of a grid.

    Attributes:
        grid: the grid.
        user: the files of `user_files`.
    """

    def __init__(self, grid: Grid) -> None:
        """Collect the source files that the runs of a grid need."""
        self.grid = grid
        self._inputs = Inputs(grid)
        self._specification = self._inputs.specification
        self._sharing = _sharing_features(grid)
        self.user = user_files(grid)

    def __iter__(self) -> Iterator[Job]:
        """Yield the jobs, each after the jobs that it depends on."""
        for name in self.user.data:
            yield from self._data(name)
        yield from map(self._backbone, self.user.backbones)
        yielded: set[str] = set()  # paths of caches and trained learners, which runs may share
        for run in self.grid.runs:
            trained = self.grid.trained(run)
            for task in range(run.n_tasks):
                if (learner := self.grid.files(trained).task(task).learner) not in yielded:
                    yielded.add(learner)
                    inputs = self._inputs.learning(trained, task)
                    yield from self._caches(inputs, yielded)
                    yield self._task(trained, task, inputs)
                if run.aligned:
                    inputs = self._inputs.aligning(run, task)
                    yield from self._caches(inputs, yielded)
                    yield self._alignment(run, task, inputs)
            yield from self._caches(self._inputs.evaluating(run), yielded)
            if trained.folder in self._sharing:
                yield self._features(trained)
            yield self.evaluation(run)
        yield from map(self._deployment, self.grid.deployed)

    def _caches(self, inputs: Files, yielded: set[str]) -> Iterator[Job]:
        """Yield the jobs that write the caches among some inputs, after those that they depend on.

        Those in `yielded` are left out, and the others added to it.
        """
        for cache in caches_in(inputs):
            if cache.path not in yielded:
                yielded.add(cache.path)
                read, answers = self._inputs.of(cache), cache.spec.answers
                yield from self._caches(read, yielded)
                if answers is not None and answers.values == "classifier":
                    yield classifying(self.grid, cache.dataset, answers)
                yield self._cache(cache, read)

    def _data(self, prepared: str) -> Iterator[Job]:
        """Yield the jobs that fetch a published source and pack its images."""
        packed, key = layout.packed(prepared), {"prepared": prepared}
        user, source = self.user, self.user.data[prepared]
        if published := "root" in source["source"]:
            yield Job(
                rule="fetch_dataset",
                key=key,
                outputs={"record": packed.fetched},
                records=(Record(packed.fetched),),
                files=packed.job("fetch_dataset"),
                given=lambda: {"source": source["source"]},
            )

        def reads() -> Paths:
            if published:
                return {"record": packed.fetched}
            if source["source"]["name"] == "folder":  # may have too many images to list as inputs
                return {}
            return {"files": [str(file) for file in user.of_data(prepared)]}

        outputs = packed.outputs()
        yield Job(
            rule="prepare_dataset",
            key=key,
            outputs=dict(outputs),
            records=(
                Record(
                    outputs.pop("manifest"), tuple(outputs.values()), partial(_manifest, source)
                ),
            ),
            files=packed.job("prepare_dataset"),
            reads=reads,
            given=lambda: {
                "format": FORMAT,
                "source": source,
                "contents": user.data_digest(prepared),
            },
        )

    def _backbone(self, name: str) -> Job:
        """Return the job that fetches and converts the weights of a backbone."""
        path, user = layout.backbone(name), self.user
        return Job(
            rule="fetch_backbone",
            key={"fetched": name},
            outputs=dict(layout.artifact("weights", path)),
            records=(
                Record(record_of(path), (path,), lambda: {"model": user.backbones[name]["model"]}),
            ),
            files=layout.fetching(name),
            reads=lambda: {"files": list(map(str, user.of_backbone(name)))},
            given=lambda: {"source": user.backbones[name], "contents": user.backbone_digest(name)},
        )

    def _cache(self, cache: Cache, inputs: Files) -> Job:
        """Return the job that writes a cache."""
        grid, spec, teacher = self.grid, cache.spec, cache.teacher
        key = {"queried" if spec.answers is None else "answered": cache.name}
        of_task, made_from = {} if cache.task is None else {"task": cache.task}, MadeFrom()
        if teacher is not None and cache.task is not None:
            key = key_of(teacher)
            made_from["inputs", "teacher"] = record_of(grid.checkpoint(teacher, cache.task))
        outputs = layout.artifact(spec.kind, cache.path)

        def given() -> dict[str, Any]:
            params: dict[str, Any] = {"spec": spec.to_json()}
            if cache.task is not None and spec.stream is not None:
                packed = grid.packed_name(cache.dataset)
                params["images"] = self.user.images_digest(packed, spec.stream, cache.task)
            if spec.answers is not None:
                params["test_images_per_class"] = grid.test_images_per_class(cache.dataset)
            return params

        return Job(
            rule=cache.rule,
            key=key | {name: str(task) for name, task in of_task.items()},
            outputs=dict(outputs),
            records=(
                Record(
                    outputs["metadata"],
                    (cache.path,),
                    lambda: {**of_task, "spec": spec.to_json()},
                    made_from,
                ),
            ),
            files=cache.files,
            reads=lambda: paths(inputs),
            given=given,
            measured=True,
            alike=(cache.dataset, cache.backbone),
        )

    def _task(self, run: Run, task: int, inputs: Files) -> Job:
        """Return the job that trains a run on one task, see `Grid.trained`."""
        grid, teacher = self.grid, self.grid.teacher_of(run)

        def given() -> dict[str, Any]:
            if run.teacher is None:
                return {}
            # None of a file of answers, which has no specification
            return {"teacher_spec": teacher and self._specification(teacher, task).to_json()}

        made_from: MadeFrom = {
            ("inputs", "backbones", name): record_of(grid.backbone(name)) for name in run.backbones
        }
        outputs = grid.files(run).task(task).outputs()
        job = self._learning(run, task, run.rule, outputs, inputs, made_from, teacher)
        return replace(job, given=lambda: job.given() | given(), training=run.folder)

    def _alignment(self, run: Run, task: int, inputs: Files) -> Job:
        """Return the job that aligns the heads of a run after one task."""
        grid, trained = self.grid, self.grid.trained(run)
        teacher = grid.teacher_of(run) if run.statistics == "teacher" else None

        def given() -> dict[str, Any]:
            return {
                "trained_spec": self._specification(trained, task).to_json(),
                "teacher_query": run.mapped_query,
                "query_names": names_in(inputs, "queries"),
                "teacher_spec": teacher and self._specification(teacher, task).to_json(),
            }

        made_from: MadeFrom = {
            ("inputs", "trained"): record_of(grid.files(trained).task(task).learner)
        }
        outputs = layout.artifact("aligned", grid.files(run).task(task).aligned)
        job = self._learning(run, task, "align", outputs, inputs, made_from, teacher)
        return replace(job, given=lambda: job.given() | given(), training=trained.folder)

    def _learning(
        self,
        run: Run,
        task: int,
        rule: str,
        outputs: dict[str, str],
        inputs: Files,
        made_from: MadeFrom,
        teacher: Run | None,
    ) -> Job:
        """Return what the jobs that train and align a run on a task have in common."""
        grid, files = self.grid, tuple(p for name, p in outputs.items() if name != "metadata")
        if task:
            made_from["inputs", "previous"] = record_of(grid.checkpoint(run, task - 1))
        if teacher is not None:
            made_from["inputs", "teacher"] = record_of(grid.checkpoint(teacher, task))
        specification = partial(self._specification, run, task)
        record = Record(
            outputs["metadata"],
            files,
            lambda: {"task": task, "learner": specification().to_json()},
            made_from,
        )
        return Job(
            rule=rule,
            key=key_of(run) | {"task": str(task)},
            outputs=dict(outputs),
            records=(record,),
            files=grid.files(run).task(task).job(rule),
            reads=lambda: paths(inputs),
            given=lambda: {
                "spec": specification().to_json(),
                "images": self._images(run, task),
                "names": names_in(inputs, "backbones"),
            },
            measured=True,
            alike=_alike(run),
        )

    def evaluation(self, run: Run, first_tasks: int | None = None) -> Job:
        """Return the job that evaluates a run after all its tasks.

        Args:
            run: run of the grid.
            first_tasks: number of tasks after which `evaluate_trial` evaluates a trial; None for
                all tasks.
        """
        grid, files = self.grid, self.grid.files(run)
        tasks = range(first_tasks or run.n_tasks)
        inputs = self._inputs.evaluating(run, tasks)
        outputs = files.first_outputs() if first_tasks else files.outputs()
        n, spec = grid.test_images_per_class(run.dataset), self._specification(run)
        unlabelled = grid.unlabelled(run.dataset) if spec.unlabelled is not None else None
        unknown = grid.config["evaluation"]["unknown"] and not first_tasks
        revision: dict[str, Any] = {} if first_tasks else {"evaluation": EVALUATION}
        revision |= {"evaluates": ["unknown"]} if unknown else {}
        trained = grid.trained(run)
        if trained.folder in self._sharing and not first_tasks:
            inputs["features"] = grid.files(trained).test_features
        record = Record(
            outputs["results"],
            (outputs["predictions"],),
            lambda: {**revision, "learner": spec.to_json(), "test_images_per_class": n},
            {("checkpoints",): [record_of(grid.checkpoint(run, task)) for task in tasks]},
            (grid.packed(run.dataset).manifest, *([unlabelled.manifest] if unlabelled else [])),
        )
        return Job(
            rule="evaluate_trial" if first_tasks else "evaluate",
            key=key_of(run),
            outputs=dict(outputs),
            records=(record,),
            files=files.first if first_tasks else files.evaluation,
            reads=lambda: paths(inputs),
            given=lambda: {
                "spec": spec.to_json(),
                "names": names_in(inputs, "backbones"),
                "query_names": names_in(inputs, "queries"),
                "teacher_query": run.mapped_query,
                "images_per_class": n,
                **({} if first_tasks else {"revision": EVALUATION, "unknown": unknown}),
            },
            measured=True,
            alike=_alike(run),
            training=trained.folder,
        )

    def _features(self, run: Run) -> Job:
        """Return the job of the test features that several runs share, by their `Grid.trained`."""
        evaluation, files = self.evaluation(run), self.grid.files(run)
        inputs = self._inputs.evaluating(run)
        outputs = layout.artifact("features", files.test_features)
        made_from = evaluation.records[0].made_from
        record = Record(outputs["metadata"], (outputs["features"],), made_from=made_from)
        return replace(
            evaluation,
            rule="test_features",
            outputs=dict(outputs),
            records=(record,),
            files=files.featuring,
            reads=lambda: paths(inputs),
        )

    def _deployment(self, run: Run) -> Job:
        """Return the job that exports a run and compares its predictions with the evaluation."""
        grid, files, made = self.grid, self.grid.files(run), self.grid.deployed_files(run)
        packed, last = grid.packed(run.dataset), run.n_tasks - 1
        names = {run.backbone, run.query if run.prompts.needs_query else run.backbone}
        inputs: Files = {
            "results": files.results,
            "predictions": files.predictions,
            "learner": grid.checkpoint(run, last),
            "backbones": [grid.backbone(name) for name in sorted(names)],
            "data": [packed.manifest, *packed.split("test")[1:], *packed.split("train")[1:]],
        }
        if run.aligned or not run.prompts.trains:  # what the student needs to learn on elsewhere
            tasks = range(run.n_tasks)
            inputs["tasks"] = [record_of(grid.checkpoint(run, task)) for task in tasks]
        if run.aligned:
            inputs["trained"] = grid.files(grid.trained(run)).task(last).learner
        models = tuple(made.model(weights) for weights in layout.WEIGHTS)
        return Job(
            rule="deploy",
            key=key_of(run),
            outputs=made.outputs(),
            records=(Record(made.job.record, models),),
            files=made.job,
            reads=lambda: paths(inputs),
            given=lambda: {"int8": grid.config["deploy"]["int8"]},
        )

    def _images(self, run: Run, task: int) -> str:
        """Return a digest of a task's training images; empty for a published source."""
        stream = self._specification(run, task).stream
        return self.user.images_digest(self.grid.packed_name(run.dataset), stream, task)


def _sharing_features(grid: Grid) -> set[str]:
    """Return the folders of the trained runs of several runs, which share their test features."""
    counted = Counter(grid.trained(run).folder for run in grid.runs) if grid.cached else {}
    return {folder for folder, n in counted.items() if n > 1}


def _manifest(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a manifest that are arguments of `cdl.data.packing.prepare`."""
    return {name: arguments[name] for name in ("source", "short_side")}


def key_of(run: Run) -> dict[str, str]:
    """Return the wildcards of a run."""
    return {
        "dataset": run.dataset,
        "method": run.method.label,
        "learner": run.learner,
        "seed": str(run.seed),
    }


def _alike(run: Run) -> tuple[str, ...]:
    """Return properties of a run that determine how long its jobs take, see `Job.alike`."""
    return (run.dataset, run.role, run.method.label, run.distiller.label)
