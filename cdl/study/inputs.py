"""Inputs of the jobs that learn and evaluate a run, by their names in the rules.

With `compute.targets: cached`, the queries of a backbone and the logits of a teacher are separate
files, shared by all configurations with the same views. With `online`, jobs load the frozen
models.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from cdl import layout
from cdl.layout import JobFiles, RunFiles, record_of
from cdl.spec import CacheSpec, LearnerSpec
from cdl.study.classifiers import classifying
from cdl.study.grid import Grid
from cdl.study.jobs import Paths, flat
from cdl.study.runs import Run
from cdl.study.specifications import specification


@dataclass(frozen=True)
class Cache:
    """A file with the outputs of a frozen model for the images of a task, or for the test images.

    Attributes:
        folder: folder of the queries or answers, or of the teacher's run.
        spec: specification of its content.
        dataset: label of the dataset.
        backbone: name of the backbone that computes it.
        task: counted from 0; None for the test images.
        teacher: the run whose logits it stores; None for queries, and for answers.
    """

    folder: str
    spec: CacheSpec
    dataset: str
    backbone: str
    task: int | None
    teacher: Run | None = None

    @property
    def rule(self) -> str:
        """Name of the rule that writes it."""
        if self.spec.kind == "queries":
            return "test_queries" if self.task is None else "queries"
        if self.spec.answers is not None:
            return "answers"
        views = "_test" if self.spec.views == "held_out" else ""
        return f"teacher_targets{views}" + ("_seen" if self.spec.columns == "seen" else "")

    @property
    def name(self) -> str:
        """Name of its folder."""
        return Path(self.folder).name

    @property
    def files(self) -> JobFiles:
        """Log and benchmark of the job that writes it."""
        if self.teacher is None:
            return layout.caching(self.folder, "test" if self.task is None else self.task)
        assert self.task is not None, "only queries are of the test images"
        return RunFiles(self.folder).task(self.task).job(self.rule)

    @property
    def path(self) -> str:
        """Path of its tensors."""
        return f"{self.files.stem}.safetensors"


# Values of the inputs of a job: a file, several files, or files by the name of their backbone
Files = dict[str, str | list[str] | dict[str, str] | Cache | dict[str, Cache]]


def path_of(file: str | Cache) -> str:
    """Return the path of a file."""
    return file.path if isinstance(file, Cache) else file


def names_in(inputs: Files, name: str) -> list[str]:
    """Return the names of an input that is several files by name, in the order of its `paths`."""
    files = inputs[name]
    assert isinstance(files, dict), "only backbones and caches have names"
    return list(files)


def caches_in(inputs: Files) -> Iterator[Cache]:
    """Yield the caches among the inputs of a job."""
    for value in inputs.values():
        several = value.values() if isinstance(value, dict) else [value]
        yield from (cache for cache in several if isinstance(cache, Cache))


def paths(inputs: Files) -> Paths:
    """Return the paths of the inputs of a job, and the records of all tensors under `records`.

    Snakemake detects changes of large files through their records, which have the sha256: the JSON
    file next to a tensor file, and the manifest of packed data, which is an input already. So a
    job does not run again because a large file was touched; the job that opens it checks it.
    """
    found: Paths = {}
    for name, value in inputs.items():
        if isinstance(value, dict):
            found[name] = [path_of(file) for file in value.values()]
        else:
            found[name] = value if isinstance(value, list) else path_of(value)
    tensors = [path for path in flat(found) if path.endswith(".safetensors")]
    return {**found, "records": [record_of(path) for path in tensors]}


class Inputs:
    """Inputs of the jobs of a grid: their names are arguments of the functions that jobs call.

    Attributes:
        grid: the grid.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self._after_all_tasks = lru_cache(None)(partial(specification, grid))

    def specification(self, run: Run, task: int | None = None) -> LearnerSpec:
        """Return the specification of a run after a task; None: after the last one."""
        spec = self._after_all_tasks(run)
        return spec if task is None else spec.until(task)

    def learning(self, run: Run, task: int) -> Files:
        """Return the inputs of the job that trains a run on a task, see `Grid.trained`."""
        grid, query = self.grid, run.query if run.prompts.needs_query else None
        only_labels = not run.distils.uses_teacher(run.distiller.options)
        taught, names = self._taught(run, task, only_labels=only_labels, own_query=query)
        inputs = self._of_task(run, [query] if query else [], names)
        if task:
            inputs["previous"] = grid.checkpoint(run, task - 1)
        inputs |= taught
        if query and grid.cached:
            inputs["queries"] = self._queries(run, task, query)
        return inputs

    def aligning(self, run: Run, task: int) -> Files:
        """Return the inputs of the job that aligns the heads of a run after a task.

        With `answers: test` the teacher's outputs are those of the test views.
        """
        grid, alignment = self.grid, self.specification(run, task).alignment
        assert alignment is not None, "only runs with an alignment"
        taught, names = Files(), set[str]()
        if run.statistics == "teacher":
            views = "held_out" if alignment.answers == "test" else "train"
            taught, names = self._taught(run, task, views)
        queries, trained = _test_queries_of(run), grid.files(grid.trained(run))
        inputs = self._of_task(run, queries, names)
        inputs["trained"] = trained.task(task).learner
        if task:
            inputs["previous"] = grid.files(run).task(task - 1).aligned
            if alignment.drift != "none":
                inputs["before"] = trained.task(task - 1).learner
        inputs |= taught
        cached = queries if grid.cached else []
        inputs["queries"] = {name: self._queries(run, task, name, "held_out") for name in cached}
        return inputs

    def evaluating(self, run: Run, tasks: Iterable[int] | None = None) -> Files:
        """Return the inputs of the job that evaluates a run after some tasks; None: after all."""
        grid, queries = self.grid, _test_queries_of(run)
        tasks = range(run.n_tasks) if tasks is None else tasks
        return {
            "data": grid.packed(run.dataset).split("test"),
            "backbones": self._backbones({run.backbone}, queries),
            "queries": {n: self._test_queries(run, n) for n in queries} if grid.cached else {},
            "checkpoints": [grid.checkpoint(run, task) for task in tasks],
        }

    def prompting(self, run: Run) -> Files:
        """Return the inputs of the job that determines which prompts a run's test images use."""
        names = [n for n in _test_queries_of(run) if n == run.query] if self.grid.cached else []
        queries = {name: self._test_queries(run, name) for name in names}
        return self.evaluating(run, [run.n_tasks - 1]) | {"queries": queries}

    def of(self, cache: Cache) -> Files:
        """Return the inputs of the job that writes a cache."""
        grid, spec, teacher = self.grid, cache.spec, cache.teacher
        if spec.answers is not None:
            packed, given = grid.packed(cache.dataset), grid.answers[spec.answers.name]
            data = [*packed.split("train"), *packed.split("test")[1:]]
            if "answers" in given:
                return {"data": data, "files": [given["answers"]]}
            answers = classifying(grid, cache.dataset, spec.answers)
            return {"data": data, "table": flat(answers.outputs)}
        dataset = cache.dataset if teacher is None else teacher.dataset
        inputs: Files = {
            "data": grid.packed(dataset).split("test" if cache.task is None else "train"),
            "backbone": grid.backbone(cache.backbone),
        }
        if teacher is not None and cache.task is not None:
            inputs["teacher"] = grid.checkpoint(teacher, cache.task)
            if teacher.prompts.needs_query:
                inputs["queries"] = self._cache(
                    cache.dataset, teacher.query, cache.task, spec.queries
                )
        return inputs | self._unlabelled(cache.dataset, spec.unlabelled is not None)

    def _of_task(self, run: Run, queries: list[str], names: set[str]) -> Files:
        """Return data and backbones of a job on a task of a run.

        Args:
            run: the run.
            queries: backbones of the queries of its prompts.
            names: backbones that the job loads for the teacher.
        """
        inputs: Files = {
            "data": self.grid.packed(run.dataset).split("train"),
            "backbones": self._backbones({run.backbone, *names}, queries),
        }
        reads = self.grid.dataset(run)["unlabelled"] is not None
        return inputs | self._unlabelled(run.dataset, reads)

    def _backbones(self, names: set[str], queries: list[str]) -> dict[str, str]:
        """Return backbones to load, with those of queries that are not cached, by name."""
        online = set() if self.grid.cached else {*queries}
        return {name: self.grid.backbone(name) for name in sorted(names | online)}

    def _unlabelled(self, dataset: str, reads: bool) -> Files:
        """Return the packed unlabelled images of a dataset, if a job reads them."""
        packed = self.grid.unlabelled(dataset) if reads else None
        return {} if packed is None else {"unlabelled": packed.split("train")}

    def _taught(
        self,
        run: Run,
        task: int,
        views: str = "train",
        *,
        only_labels: bool = True,
        own_query: str | None = None,
    ) -> tuple[Files, set[str]]:
        """Return what a job reads to obtain the outputs of a run's teacher, if it has one.

        Args:
            run: the run.
            task: counted from 0.
            views: `train` or `held_out`, see `CacheSpec`.
            only_labels: whether the teacher only labels images, which needs logits only.
            own_query: backbone of the queries that the job reads for the learner itself.

        Returns:
            Inputs, and the names of the backbones to load for the teacher.
        """
        grid, teacher, spec = self.grid, self.grid.teacher_of(run), self.specification(run, task)
        columns = spec.soft_columns
        if only_labels:  # see `Labelling`
            columns = spec.labelling.columns if spec.labelling else "task"
        if run.answers is not None:
            targets = spec.targets(run.answers, columns)
            return {"targets": self._cache(run.dataset, run.answers.name, task, targets)}, set()
        if teacher is None:
            return {}, set()
        maps = run.distils.maps_prompts and not only_labels
        # whether the job runs the teacher, since its outputs are not in a cache
        whole = not grid.cached or (run.reads_blocks and not only_labels)
        query = teacher.query if teacher.prompts.needs_query else None
        inputs: Files = {}
        if whole or maps:
            inputs["teacher"] = grid.checkpoint(teacher, task)
            if query and grid.cached and query != own_query:
                inputs["teacher_queries"] = self._queries(run, task, query)
        if not whole:
            targets = spec.targets(self.specification(teacher, task), columns, views)
            folder = grid.files(teacher).folder
            inputs["targets"] = Cache(folder, targets, run.dataset, teacher.backbone, task, teacher)
        names = {teacher.backbone} if whole else set()
        return inputs, names | ({query} if query and not grid.cached else set())

    def _queries(self, run: Run, task: int, backbone: str, views: str = "train") -> Cache:
        """Return the cache of a backbone's queries of the training images of a run's task.

        Streams that are equal up to a task share the cache of that task.
        """
        spec = self.specification(run, task).queries(backbone, views)
        return self._cache(run.dataset, backbone, task, spec)

    def _test_queries(self, run: Run, backbone: str) -> Cache:
        """Return the cache of a backbone's queries of the test images."""
        n = self.grid.test_images_per_class(run.dataset)
        spec = self.specification(run).test_queries(backbone, n)
        return self._cache(run.dataset, backbone, None, spec)

    def _cache(self, dataset: str, backbone: str, task: int | None, spec: CacheSpec) -> Cache:
        """Return the cache of queries or answers, in a folder named after all it depends on."""
        grid = self.grid
        sources = [grid.source(dataset)]
        if spec.answers is None:
            sources.append(grid.backbone_source(backbone))
        if spec.unlabelled is not None and (unlabelled := grid.unlabelled_source(dataset)):
            sources.append(unlabelled)
        packed = grid.datasets[dataset].name
        if packed != sources[0]["source"]["name"]:  # it is in the path of the packed data
            sources.append({"packed": packed})
        name = layout.queries_name(backbone, spec.to_json(), *sources)
        return Cache(layout.queries(name), spec, dataset, backbone, task)


def _test_queries_of(run: Run) -> list[str]:
    """Return the backbones of the queries of a learner's prompts at prediction, sorted."""
    names = (run.query, run.mapped_query) if run.prompts.needs_query else ()
    return sorted({name for name in names if name})
