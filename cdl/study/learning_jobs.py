"""Jobs that prepare data, compute caches, train, evaluate and deploy."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from cdl import EVALUATION, layout
from cdl.data import FORMAT
from cdl.layout import JobFiles, RunFiles, record_of
from cdl.study.classifiers import classifying
from cdl.study.contents import UserFiles
from cdl.study.grid import Grid
from cdl.study.inputs import Cache, Needs, aligning, evaluating, learning
from cdl.study.jobs import Job, MadeFrom, Paths, Record, flat
from cdl.study.runs import Run
from cdl.study.specifications import specification


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
        queries: caches of queries, by the name of their folder.
        targets: caches of targets by task, and one run that reads them, by name of the cache.
        user: the files of `user_files`.
    """

    def __init__(self, grid: Grid) -> None:
        """Collect the caches and source files that the runs of a grid need."""
        self.grid = grid
        trained = {own.folder: own for own in map(grid.trained, grid.runs)}
        self._learning = {own.folder: learning(grid, own) for own in trained.values()}
        self._aligning = {run.folder: aligning(grid, run) for run in grid.runs if run.aligned}
        self._evaluating = {run.folder: evaluating(grid, run) for run in grid.runs}
        self._sharing = _sharing_features(grid)
        self._specification = lru_cache(None)(partial(specification, grid))
        found = [*self._learning.values(), *self._aligning.values(), *self._evaluating.values()]
        caches = [own for need in found for own in need.by_task]
        self.queries = {Path(cache.folder).name: cache for own in caches for cache in own}
        self.targets: dict[str, tuple[Needs, Run]] = {
            need.taught.targets[0].name: (need, run)
            for run in (*trained.values(), *grid.runs)
            for need in self._training_views(run)
            if need.taught.targets
        }
        self.user = user_files(grid)

    def _training_views(self, run: Run) -> list[Needs]:
        """Return what the jobs of a run read of training images, if they are jobs of its own."""
        found = (self._learning.get(run.folder), self._aligning.get(run.folder))
        return [need for need in found if need is not None]

    def __iter__(self) -> Iterator[Job]:
        """Yield the jobs, each after the jobs that it depends on."""
        for name in self.user.data:
            yield from self._data(name)
        yield from map(self._backbone, self.user.backbones)
        yielded: set[tuple[str, int | str]] = set()  # caches, which several runs may share
        for run in self.grid.runs:
            trained = self.grid.trained(run)
            for own in dict.fromkeys([trained, run]):
                yield from self._caches(own, yielded)
            for task in range(run.n_tasks):
                yield self._task(trained, task)
                if run.aligned:
                    yield self._alignment(run, task)
            if trained.folder in self._sharing:
                yield self._features(trained)
            yield self.evaluation(run)
        yield from map(self._deployment, self.grid.deployed)

    def _caches(self, run: Run, yielded: set[tuple[str, int | str]]) -> Iterator[Job]:
        """Yield the jobs of the caches of a run that are not in `yielded`, and add them to it."""
        parts: list[tuple[Cache, int | str]] = []
        for need in self._training_views(run):
            parts += [(own, task) for caches in need.by_task for task, own in enumerate(caches)]
        if run.folder in self._evaluating:
            parts += [(own, "test") for (own,) in self._evaluating[run.folder].queries]
        for own, part in parts:
            if (own.folder, part) not in yielded:
                yielded.add((own.folder, part))
                yield self._test_queries(own) if part == "test" else self._queries(own, int(part))
        for need in self._training_views(run):
            for task, own in enumerate(need.taught.targets):
                if (own.name, task) not in yielded:
                    yielded.add((own.name, task))
                    if own.spec.answers is not None and own.spec.answers.values == "classifier":
                        yield classifying(self.grid, own.dataset, own.spec.answers)
                    yield self._targets(own, task)

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

    def _queries(self, cache: Cache, task: int) -> Job:
        """Return the job that computes the queries of a task's training images."""
        cache = self.queries[Path(cache.folder).name]
        prepared, stream = self.grid.packed_name(cache.dataset), cache.spec.stream
        assert stream is not None, "only test images have no stream"
        return self._cache(
            "queries",
            {"queried": Path(cache.folder).name, "task": str(task)},
            cache,
            layout.artifact("queries", layout.cached(cache.folder, task)),
            layout.caching(cache.folder, task),
            lambda: self._computing_queries(cache, "train"),
            lambda: {
                "spec": cache.spec.to_json(),
                "images": self.user.images_digest(prepared, stream, task),
            },
        )

    def _test_queries(self, cache: Cache) -> Job:
        """Return the job that computes the queries of the test images."""
        cache = self.queries[Path(cache.folder).name]
        return self._cache(
            "test_queries",
            {"queried": Path(cache.folder).name},
            cache,
            layout.artifact("queries", layout.cached(cache.folder, "test")),
            layout.caching(cache.folder, "test"),
            lambda: self._computing_queries(cache, "test"),
            lambda: {"spec": cache.spec.to_json()},
        )

    def _targets(self, cache: Cache, task: int) -> Job:
        """Return the job that computes a teacher's logits for a task's training images."""
        if cache.spec.answers is not None:
            return self._answers(cache, task)
        cache = self.targets[cache.name][0].taught.targets[task]
        teacher = cache.teacher
        assert teacher is not None, "targets have a teacher"
        rule = f"teacher_targets_{cache.kind}" if cache.kind else "teacher_targets"
        return self._cache(
            rule,
            key_of(teacher) | {"task": str(task)},
            cache,
            layout.artifact("targets", cache.path(task)),
            RunFiles(cache.folder).task(task).job(rule),
            lambda: self._computing_targets(cache, teacher, task),
            lambda: {
                "spec": cache.spec.to_json(),
                "images": self._images(teacher, task),
            },
            {("inputs", "teacher"): record_of(self.grid.checkpoint(teacher, task))},
        )

    def _answers(self, cache: Cache, task: int) -> Job:
        """Return the job that checks and copies the answers for a task's training images."""
        assert cache.spec.answers is not None and cache.spec.stream is not None
        packed, stream = self.grid.packed(cache.dataset), cache.spec.stream
        given = self.grid.answers[cache.spec.answers.name]
        table: Paths = {"files": [given["answers"]]} if "answers" in given else {}
        if not table:
            table = {
                "table": flat(classifying(self.grid, cache.dataset, cache.spec.answers).outputs)
            }
        n = self.grid.test_images_per_class(cache.dataset)
        return self._cache(
            "answers",
            {"answered": Path(cache.folder).name, "task": str(task)},
            cache,
            layout.artifact("targets", cache.path(task)),
            layout.caching(cache.folder, task),
            lambda: {
                "data": [*packed.split("train"), *packed.split("test")[1:]],
                **table,
            },
            lambda: {
                "spec": cache.spec.to_json(),
                "images": self.user.images_digest(
                    self.grid.packed_name(cache.dataset), stream, task
                ),
                "test_images_per_class": n,
            },
        )

    def _cache(
        self,
        rule: str,
        key: dict[str, str],
        cache: Cache,
        outputs: dict[str, str],
        files: JobFiles,
        reads: Any,
        given: Any,
        made_from: MadeFrom | None = None,
    ) -> Job:
        """Return the job of a cache of queries or targets."""
        path, metadata = outputs.values()
        part = {"task": int(key["task"])} if "task" in key else {}
        record = Record(
            metadata, (path,), lambda: {**part, "spec": cache.spec.to_json()}, made_from or {}
        )
        alike = (cache.dataset, cache.backbone)
        return Job(rule, key, dict(outputs), (record,), files, reads, given, True, alike)

    def _task(self, run: Run, task: int) -> Job:
        """Return the job that trains a run on one task, see `Grid.trained`."""
        grid, need, teacher = self.grid, self._learning[run.folder], self.grid.teacher_of(run)
        files = grid.files(run).task(task)

        def given() -> dict[str, Any]:
            params: dict[str, Any] = {
                "spec": self._specification(run, task).to_json(),
                "images": self._images(run, task),
                "names": need.backbones,
            }
            if run.teacher is not None:  # None of a file of answers, which has no specification
                own = teacher and self._specification(teacher, task).to_json()
                params["teacher_spec"] = own
            return params

        made_from: MadeFrom = {
            ("inputs", "backbones", name): record_of(grid.backbone(name)) for name in run.backbones
        }
        if task:
            made_from["inputs", "previous"] = record_of(grid.checkpoint(run, task - 1))
        if teacher is not None:
            made_from["inputs", "teacher"] = record_of(grid.checkpoint(teacher, task))
        outputs = files.outputs()
        record = Record(
            outputs["metadata"],
            (outputs["learner"], outputs["losses"]),
            lambda: {"task": task, "learner": self._specification(run, task).to_json()},
            made_from,
        )
        return Job(
            rule=run.rule,
            key=key_of(run) | {"task": str(task)},
            outputs=dict(outputs),
            records=(record,),
            files=files.job(run.rule),
            reads=lambda: self._learning_inputs(run, task),
            given=given,
            measured=True,
            alike=_alike(run),
            training=run.folder,
        )

    def _alignment(self, run: Run, task: int) -> Job:
        """Return the job that aligns the heads of a run after one task."""
        grid, need, trained = self.grid, self._aligning[run.folder], self.grid.trained(run)
        files, teacher = grid.files(run).task(task), self._labelling_teacher(run)

        def given() -> dict[str, Any]:
            return {
                "spec": self._specification(run, task).to_json(),
                "trained_spec": self._specification(trained, task).to_json(),
                "teacher_query": run.mapped_query,
                "images": self._images(run, task),
                "names": need.backbones,
                "query_names": [caches[0].backbone for caches in need.queries],
                "teacher_spec": teacher and self._specification(teacher, task).to_json(),
            }

        made_from: MadeFrom = {
            ("inputs", "trained"): record_of(grid.files(trained).task(task).learner)
        }
        if task:
            made_from["inputs", "previous"] = record_of(grid.files(run).task(task - 1).aligned)
        if teacher is not None:
            made_from["inputs", "teacher"] = record_of(grid.checkpoint(teacher, task))
        outputs = layout.artifact("aligned", files.aligned)
        record = Record(
            outputs["metadata"],
            (outputs["aligned"],),
            lambda: {"task": task, "learner": self._specification(run, task).to_json()},
            made_from,
        )
        return Job(
            rule="align",
            key=key_of(run) | {"task": str(task)},
            outputs=dict(outputs),
            records=(record,),
            files=files.job("align"),
            reads=lambda: self._aligning_inputs(run, task),
            given=given,
            measured=True,
            alike=_alike(run),
            training=trained.folder,
        )

    def _labelling_teacher(self, run: Run) -> Run | None:
        """Return the teacher that labels images for the alignment of a run; None without one."""
        return self.grid.teacher_of(run) if run.statistics == "teacher" else None

    def evaluation(self, run: Run, first_tasks: int | None = None) -> Job:
        """Return the job that evaluates a run after all its tasks.

        Args:
            run: run of the grid.
            first_tasks: number of tasks after which `evaluate_trial` evaluates a trial; None for
                all tasks.
        """
        grid, need, files = self.grid, evaluating(self.grid, run), self.grid.files(run)
        tasks = range(first_tasks or run.n_tasks)
        checkpoints = [grid.checkpoint(run, task) for task in tasks]
        outputs = files.first_outputs() if first_tasks else files.outputs()
        n, spec = grid.test_images_per_class(run.dataset), self._specification(run, None)
        unlabelled = grid.unlabelled(run.dataset) if spec.unlabelled is not None else None
        unknown = grid.config["evaluation"]["unknown"] and not first_tasks
        revision: dict[str, Any] = {} if first_tasks else {"evaluation": EVALUATION}
        revision |= {"evaluates": ["unknown"]} if unknown else {}
        trained = grid.trained(run)
        features = {}
        if trained.folder in self._sharing and not first_tasks:
            features["features"] = [*_test_features(grid.files(trained)).values()]
        record = Record(
            outputs["results"],
            (outputs["predictions"],),
            lambda: {**revision, "learner": spec.to_json(), "test_images_per_class": n},
            {("checkpoints",): [record_of(path) for path in checkpoints]},
            (grid.packed(run.dataset).manifest, *([unlabelled.manifest] if unlabelled else [])),
        )
        return Job(
            rule="evaluate_trial" if first_tasks else "evaluate",
            key=key_of(run),
            outputs=dict(outputs),
            records=(record,),
            files=files.first if first_tasks else files.evaluation,
            reads=lambda: {
                **track_sidecars(
                    {
                        "data": grid.packed(run.dataset).split("test"),
                        "backbones": [grid.backbone(name) for name in need.backbones],
                        "queries": [layout.cached(own.folder, "test") for (own,) in need.queries],
                        "checkpoints": checkpoints,
                    }
                ),
                **features,
            },
            given=lambda: {
                "spec": spec.to_json(),
                "names": need.backbones,
                "query_names": [own.backbone for (own,) in need.queries],
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
        outputs = _test_features(files)
        made_from = evaluation.records[0].made_from
        record = Record(outputs["metadata"], (outputs["features"],), made_from=made_from)
        return replace(
            evaluation,
            rule="test_features",
            outputs=dict(outputs),
            records=(record,),
            files=files.featuring,
            reads=lambda: {k: v for k, v in evaluation.inputs.items() if k != "features"},
        )

    def _deployment(self, run: Run) -> Job:
        """Return the job that exports a run and compares its predictions with the evaluation."""
        grid, files, made = self.grid, self.grid.files(run), self.grid.deployed_files(run)
        packed, last = grid.packed(run.dataset), run.n_tasks - 1
        names = {run.backbone, run.query if run.prompts.needs_query else run.backbone}
        inputs: Paths = {
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
            reads=lambda: track_sidecars(inputs),
            given=lambda: {"int8": grid.config["deploy"]["int8"]},
        )

    def _images(self, run: Run, task: int) -> str:
        """Return a digest of a task's training images; empty for a published source."""
        stream = self._specification(run, task).stream
        return self.user.images_digest(self.grid.packed_name(run.dataset), stream, task)

    def _computing_queries(self, cache: Cache, split: str) -> Paths:
        """Return the inputs of a job that computes queries of a split."""
        inputs: Paths = {
            "data": self.grid.packed(cache.dataset).split(split),
            "backbone": self.grid.backbone(cache.backbone),
        }
        return track_sidecars(
            inputs | self._unlabelled(cache.dataset, cache.spec.unlabelled is not None)
        )

    def _computing_targets(self, cache: Cache, run: Run, task: int) -> Paths:
        """Return the inputs of the job that computes a teacher's targets of a task."""
        need, student = self.targets[cache.name]
        inputs: Paths = {
            "data": self.grid.packed(run.dataset).split("train"),
            "backbone": self.grid.backbone(run.backbone),
            "teacher": self.grid.checkpoint(run, task),
        }
        if queries := need.taught.target_queries:
            inputs["queries"] = layout.cached(queries[task].folder, task)
        reads = need.taught.targets[task].spec.unlabelled is not None
        return track_sidecars(inputs | self._unlabelled(student.dataset, reads))

    def _learning_inputs(self, run: Run, task: int) -> Paths:
        """Return the inputs of the job that trains a run on one task."""
        need = self._learning[run.folder]
        inputs = self._task_inputs(run, need)
        if task:
            inputs["previous"] = self.grid.checkpoint(run, task - 1)
        inputs |= self._taught_inputs(need, self.grid.teacher_of(run), task)
        for caches in need.queries:  # of one backbone at most
            inputs["queries"] = layout.cached(caches[task].folder, task)
        return track_sidecars(inputs)

    def _aligning_inputs(self, run: Run, task: int) -> Paths:
        """Return the inputs of the job that aligns the heads of a run after one task."""
        need = self._aligning[run.folder]
        inputs = self._task_inputs(run, need)
        trained = self.grid.files(self.grid.trained(run))
        inputs["trained"] = trained.task(task).learner
        if task:
            inputs["previous"] = self.grid.files(run).task(task - 1).aligned
            if run.method.alignment and run.method.alignment["drift"] != "none":
                inputs["before"] = trained.task(task - 1).learner
        inputs |= self._taught_inputs(need, self._labelling_teacher(run), task)
        inputs["queries"] = [layout.cached(c[task].folder, task) for c in need.queries]
        return track_sidecars(inputs)

    def _task_inputs(self, run: Run, need: Needs) -> Paths:
        """Return data and backbones of a job on a task of a run."""
        inputs: Paths = {
            "data": self.grid.packed(run.dataset).split("train"),
            "backbones": [self.grid.backbone(name) for name in need.backbones],
        }
        reads = self.grid.dataset(run)["unlabelled"] is not None
        return inputs | self._unlabelled(run.dataset, reads)

    def _taught_inputs(self, need: Needs, teacher: Run | None, task: int) -> Paths:
        """Return the files that a job reads of the teacher of a run."""
        taught, inputs = need.taught, Paths()
        if taught.teacher and teacher:
            inputs["teacher"] = self.grid.checkpoint(teacher, task)
        if taught.queries:
            inputs["teacher_queries"] = layout.cached(taught.queries[task].folder, task)
        if taught.targets:
            inputs["targets"] = taught.targets[task].path(task)
        return inputs

    def _unlabelled(self, dataset: str, reads: bool) -> Paths:
        """Return the packed unlabelled images of a dataset, if a job reads them."""
        files = self.grid.unlabelled(dataset) if reads else None
        return {} if files is None else {"unlabelled": files.split("train")}


def _sharing_features(grid: Grid) -> set[str]:
    """Return the folders of the trained runs of several runs, which share their test features."""
    counted = Counter(grid.trained(run).folder for run in grid.runs) if grid.cached else {}
    return {folder for folder, n in counted.items() if n > 1}


def _test_features(files: RunFiles) -> dict[str, str]:
    """Return tensors and record of the test features of a trained run."""
    return layout.artifact("features", files.test_features)


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


def track_sidecars(inputs: Mapping[str, str | list[str]]) -> Paths:
    """Add the records of tensor files to some inputs, under `records`.

    Snakemake detects changes of large files through their records, which have the sha256: the JSON
    file next to a tensor file, and the manifest of packed data, which is an input already. So a
    job does not run again because a large file was touched; the job that opens it checks it.
    """
    tensors = [path for path in flat(inputs) if path.endswith(".safetensors")]
    return {**inputs, "records": [record_of(path) for path in tensors]}
