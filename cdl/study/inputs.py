"""What each job reads, as plain dictionaries of paths; Snakemake's rules ask here.

With `compute.targets: cached` the queries of a backbone are files of their own, shared by all
configurations that see the same views, and so are a teacher's logits; without, jobs load the
frozen models themselves.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from cdl.spec import AligningQueriesSpec, HeldOutQueriesSpec, QueriesSpec, Stream, TargetsSpec
from cdl.study import layout
from cdl.study.contents import contents, files_of, hashes, images_contents
from cdl.study.grid import Grid
from cdl.study.layout import RunFiles, digest, record_of
from cdl.study.runs import Run
from cdl.study.specifications import label_levels, published, row, specification

Paths = dict[str, str | list[str]]
QuerySpec = QueriesSpec | AligningQueriesSpec | HeldOutQueriesSpec


@dataclass(frozen=True)
class CacheSpec:
    """The cache of a task or of the test views: its folder, what it is made of, and from what."""

    folder: str
    spec: QuerySpec | TargetsSpec
    dataset: str
    backbone: str
    teacher: Run | None = None  # whose targets they are

    @property
    def views(self) -> QuerySpec:
        """What fixes the views that it is computed from."""
        return self.spec.views if isinstance(self.spec, TargetsSpec) else self.spec


Caches = tuple[CacheSpec, ...]


@dataclass(frozen=True)
class Needs:
    """What the jobs of a run read besides data and their own past.

    Attributes:
        backbones: names of the frozen ViTs that learning loads.
        teacher: whether learning opens the teacher's artifact.
        queries: of the learner, by task; empty if it reads none.
        teacher_queries: of the teacher if they are not the learner's, or the learner reads none, by
            task.
        targets: the teacher's logits, by task.
        target_queries: what the teacher reads when its targets are made, by task.
        aligning: what alignment reads, of each backbone in the order of names, by task.
        test_backbones: names of the ViTs that evaluation loads.
        test_queries: that evaluation reads.
    """

    backbones: list[str]
    teacher: bool
    queries: Caches
    teacher_queries: Caches
    targets: Caches
    target_queries: Caches
    aligning: list[Caches]
    test_backbones: list[str]
    test_queries: list[CacheSpec]

    @property
    def all_queries(self) -> list[CacheSpec]:
        """Every cache of queries that a job of the run, or of its targets, reads."""
        return [cache for caches in (*self.by_task, self.test_queries) for cache in caches]

    @property
    def by_task(self) -> list[Caches]:
        """Caches of queries of training images, each by task; those that are not read are empty."""
        return [self.queries, self.teacher_queries, self.target_queries, *self.aligning]


def needs(grid: Grid, run: Run) -> Needs:
    """Decide what the jobs of a run read."""
    reads, cached, teacher = run.prompts.needs_query, grid.cached, grid.teacher_of(run)
    asked = run.teacher_query if teacher is not None and teacher.prompts.needs_query else None
    whole_teacher = teacher is not None and (run.reads_blocks or not cached)
    mapped = {name for name in (run.query, run.mapped_query) if name and reads}
    others = set() if cached else {run.query if reads else None, asked} | mapped
    own = reads and cached
    foreign = asked if run.distils.maps_prompts or whole_teacher else None
    loaded = {run.backbone, *others} | ({run.teacher} if whole_teacher else set())
    with_targets = teacher is not None and not whole_teacher
    return Needs(
        backbones=sorted(name for name in loaded if name),
        teacher=teacher is not None and (whole_teacher or run.distils.maps_prompts),
        queries=_queries(grid, run, run.query) if own else (),
        teacher_queries=_queries(grid, run, foreign)
        if cached and foreign is not None and not (reads and foreign == run.query)
        else (),
        targets=_targets(grid, run) if with_targets else (),
        target_queries=_queries(grid, run, asked) if with_targets and asked else (),
        aligning=[_queries(grid, run, name, aligning=True) for name in sorted(mapped)]
        if cached and run.method.alignment is not None
        else [],
        test_backbones=sorted({run.backbone} | (set() if cached else mapped)),
        test_queries=[_test_queries(grid, run, name) for name in sorted(mapped)] if cached else [],
    )


def _queries(grid: Grid, run: Run, backbone: str, aligning: bool = False) -> Caches:
    """Return the caches of a backbone's queries of a run's training images, by task.

    Each is shared by all streams that are alike up to its task, whatever follows.
    """
    spec = specification(grid, run)
    after = [spec.until(t) for t in range(run.n_tasks)]
    specs = [s.aligning_queries(backbone) if aligning else s.queries(backbone) for s in after]
    return tuple(_shared(grid, run, backbone, s) for s in specs)


def _test_queries(grid: Grid, run: Run, backbone: str) -> CacheSpec:
    """Return the cache of a backbone's queries of the test views."""
    n = grid.test_images_per_class(run.dataset)
    return _shared(grid, run, backbone, specification(grid, run).test_queries(backbone, n))


def _targets(grid: Grid, run: Run) -> Caches:
    """Return the caches of the logits of a run's teacher for the run's training views."""
    teacher = grid.teacher_of(run)
    assert teacher is not None, "only a run with a teacher has targets"
    folder, own, theirs = (
        grid.files(teacher).folder,
        *(specification(grid, r) for r in (run, teacher)),
    )
    specs = [own.until(t).targets(theirs.until(t)) for t in range(run.n_tasks)]
    return tuple(CacheSpec(folder, s, run.dataset, teacher.backbone, teacher) for s in specs)


def _shared(grid: Grid, run: Run, backbone: str, spec: QuerySpec) -> CacheSpec:
    sources = [grid.source(run.dataset), grid.backbone_source(backbone)]
    if spec.unlabelled is not None and (further := grid.unlabelled_source(run.dataset)):
        sources.append(further)
    name = layout.queries_name(backbone, spec.to_json(), *sources)
    return CacheSpec(layout.queries(name), spec, run.dataset, backbone)


class Inputs:
    """The inputs of every job of a grid.

    Attributes:
        queries: caches of queries by the name of their folder.
        targets: caches of targets by their folder, by task, and a run that reads them.
        sources: of packed data by the name of their folder.
        backbones: sources of backbones by the name of their artifact.
        levels: of labels, of every dataset that has several, see `label_levels`.
    """

    def __init__(self, grid: Grid) -> None:
        """Find out what the runs of a grid need."""
        self.grid = grid
        self.levels = label_levels(grid)
        self._needs = {run.folder: needs(grid, run) for run in grid.every}
        found = list(self._needs.values())
        self.queries = {Path(c.folder).name: c for need in found for c in need.all_queries}
        self.targets: dict[str, tuple[Caches, Run]] = {
            caches[0].folder: (caches, run)
            for run in grid.every
            if (caches := self.of(run).targets)
        }
        datasets = dict.fromkeys([*grid.datasets, *(run.dataset for run in grid.every)])
        self.sources = {grid.packed_name(name): grid.source(name) for name in datasets}
        for name in datasets:
            if (further := grid.unlabelled(name)) and (source := grid.unlabelled_source(name)):
                self.sources[Path(further.folder).name] = source
        self._images: dict[tuple[str, Stream, int], str] = {}  # digests of tasks' images
        used = {name for run in grid.every for name in run.backbones}
        self._used = sorted(used)
        self.backbones = {grid.backbone_name(n): grid.backbone_source(n) for n in self._used}

    def of(self, run: Run) -> Needs:
        """Return what the jobs of a run read."""
        return self._needs[run.folder]

    def source(self, prepared: str) -> Paths:
        """Return what packed data are prepared from, by the name of their folder.

        Either the `record` of a published source's fetch, or the Parquet `files`; a folder may
        hold too many images to name.
        """
        source = self.sources[prepared]["source"]
        if "root" in source:
            return {"record": layout.packed(prepared).fetched}
        if source["name"] == "folder":
            return {}
        return {"files": [str(file) for file in files_of(source)]}

    @cache  # noqa: B019 - as long-lived as the configuration
    def _files(self, prepared: str) -> dict[str, str]:
        """Return the sha256 of every file of a user's source by its path."""
        files = files_of(self.sources[prepared]["source"])
        return hashes(files, layout.contents_memory("data", prepared)) if files else {}

    def source_contents(self, prepared: str) -> str:
        """Return a digest that changes with the contents of a source's files, not their times."""
        files = self._files(prepared)
        return digest(sorted(files.items())) if files else ""

    def images_contents(self, dataset: str, stream: Stream, task: int) -> str:
        """Return a digest of a task's own training images in a user's source."""
        prepared = self.grid.packed_name(dataset)
        if not (files := self._files(prepared)):
            return ""
        key = (prepared, stream, task)
        if key not in self._images:  # the folder is listed once for all learners
            source = self.sources[prepared]["source"]
            self._images[key] = images_contents(source, stream, task, files)
        return self._images[key]

    def queried_contents(self, name: str, task: int) -> str:
        """Return the same for what the queries of a task are computed of, by their folder."""
        cache = self.queries[name]
        assert isinstance(cache.spec, QueriesSpec | AligningQueriesSpec), "of test images"
        return self.images_contents(cache.dataset, cache.spec.stream, task)

    def backbone_files(self, name: str) -> list[str]:
        """Return the user's file of a backbone, if it comes from one."""
        source = self.backbones[name]
        return [source["model"]] if source["source"] == "file" else []

    def backbone_contents(self, name: str) -> str:
        """Return a digest of a backbone's file."""
        files = [Path(file) for file in self.backbone_files(name)]
        return contents(files, layout.contents_memory("backbones", name)) if files else ""

    def computing_queries(self, name: str, split: str) -> Paths:
        """Return what the queries of a split are computed from, by the name of their folder."""
        cache = self.queries[name]
        inputs: Paths = {
            "data": self.grid.packed(cache.dataset).split(split),
            "backbone": self.grid.backbone(cache.backbone),
        }
        further = self._further(cache.dataset, cache.views.unlabelled is not None)
        return track_sidecars(inputs | further)

    def _further(self, dataset: str, seen: bool) -> Paths:
        """Return the packed further images of a dataset where a job reads them."""
        files = self.grid.unlabelled(dataset) if seen else None
        return {} if files is None else {"unlabelled": files.split("train")}

    def computing_targets(self, run: Run, task: int) -> Paths:
        """Return what a teacher's targets of a task are computed from."""
        files = self.grid.files(run)
        caches, student = self.targets[files.folder]
        inputs: Paths = {
            "data": self.grid.packed(run.dataset).split("train"),
            "backbone": self.grid.backbone(run.backbone),
            "teacher": files.task(task).learner,
        }
        queries = self.of(student).target_queries
        if queries:
            inputs["queries"] = layout.cached(queries[task].folder, task)
        seen = caches[task].views.unlabelled is not None
        return track_sidecars(inputs | self._further(student.dataset, seen))

    def learning(self, run: Run, task: int) -> Paths:
        """Return what one task of a run is learnt from; only what is needed is named."""
        need, teacher = self.of(run), self.grid.teacher_of(run)
        inputs: Paths = {
            "data": self.grid.packed(run.dataset).split("train"),
            "backbones": [self.grid.backbone(name) for name in need.backbones],
        }
        if task:
            inputs["previous"] = self.grid.files(run).task(task - 1).learner
        if need.teacher and teacher:
            inputs["teacher"] = self.grid.files(teacher).task(task).learner
        for name, caches in (("queries", need.queries), ("teacher_queries", need.teacher_queries)):
            if caches:
                inputs[name] = layout.cached(caches[task].folder, task)
        if need.aligning:
            inputs["aligning"] = [layout.cached(c[task].folder, task) for c in need.aligning]
        if need.targets:
            inputs["targets"] = RunFiles(need.targets[task].folder).task(task).targets
        seen = "unlabelled" in self.grid.dataset(run)
        return track_sidecars(inputs | self._further(run.dataset, seen))

    def evaluation(self, run: Run, tasks: int | None = None) -> Paths:
        """Return what a run is evaluated from, after all tasks or the first ones."""
        need, files = self.of(run), self.grid.files(run)
        return track_sidecars(
            {
                "data": self.grid.packed(run.dataset).split("test"),
                "backbones": [self.grid.backbone(name) for name in need.test_backbones],
                "queries": [layout.cached(cache.folder, "test") for cache in need.test_queries],
                "checkpoints": [files.task(t).learner for t in range(tasks or run.n_tasks)],
            }
        )

    def deploying(self, run: Run) -> Paths:
        """Return what a run is exported from, and compared with."""
        packed, files = self.grid.packed(run.dataset), self.grid.files(run)
        named = {run.backbone, run.query if run.prompts.needs_query else run.backbone}
        splits = [packed.manifest, *packed.split("test")[1:], *packed.split("train")[1:]]
        return track_sidecars(
            {
                "results": files.results,
                "predictions": files.predictions,
                "learner": files.task(run.n_tasks - 1).learner,
                "backbones": [self.grid.backbone(name) for name in sorted(named)],
                "data": splits,
            }
        )

    def measuring(self) -> Paths:
        """Return the exported students that are measured side by side."""
        found = [self.grid.deployed_files(run) for run in self.grid.deployed]
        models = [files.model(weights) for files in found for weights in layout.WEIGHTS]
        return {"records": [files.job.record for files in found], "models": models}

    @property
    def measured_rows(self) -> list[dict[str, Any]]:
        """Return the columns that identify these students, and where each lies."""
        grid = self.grid
        return [
            row(grid, run) | {"deployed": grid.deployed_files(run).folder} for run in grid.deployed
        ]

    @property
    def deployed_datasets(self) -> list[str]:
        """Return datasets that have a figure of deployment."""
        return list(dict.fromkeys(run.dataset for run in self.grid.deployed))

    def deployment(self, figures: bool = False) -> Paths:
        """Return table, record, perhaps figures of deployment; nothing if nothing is deployed."""
        if not self.grid.deployed:
            return {}
        report = self.grid.layout.report
        csv, record = report.tables.deployment("csv"), report.tables.record("deployment")
        found: Paths = {"deployment": csv, "deployment_record": record}
        drawn = report.deployment_figures(self.deployed_datasets)
        return found | ({"deployment_figures": drawn} if figures else {})

    def costs(self, run: Run) -> list[str]:
        """Return the benchmark files of a run's tasks."""
        files = self.grid.files(run)
        return [files.task(t).job(run.rule).benchmark for t in range(run.n_tasks)]

    @cached_property
    def collected(self) -> dict[str, list[Any]]:
        """Return rows of the tables, results and costs of all runs, in one order."""
        runs = self.grid.runs
        return {
            "rows": [row(self.grid, run) for run in runs],
            "results": [self.grid.files(run).results for run in runs],
            "predictions": [self.grid.files(run).predictions for run in runs],
            "costs": [self.costs(run) for run in runs],
        }

    def compared(self, comparison: str) -> dict[str, Any]:
        """Return rows and results of the runs of a table, and what the papers call them."""
        runs = self.grid.runs_of(*self.grid.comparisons[comparison])
        return {
            "rows": [row(self.grid, run) for run in runs],
            "results": [self.grid.files(run).results for run in runs],
            "published": published(self.grid, *self.grid.comparisons[comparison]),
        }

    def evaluations(self, dataset: str) -> list[str]:
        """Return what the runs of a dataset came to."""
        runs = [self.grid.files(run) for run in self.grid.runs_on(dataset)]
        return [path for files in runs for path in (files.results, files.predictions)]

    def shown(self) -> dict[str, Any]:
        """Return what the page links to: files of every run, packed data, backbones."""
        grid = self.grid
        described = {
            grid.files(run).folder: {
                "results": grid.files(run).results,
                "files": grid.files(run).described(run.n_tasks, run.rule),
            }
            for run in grid.runs
        }
        return {
            "runs": described,
            "data": {name: grid.packed(name).manifest for name in grid.datasets},
            "backbones": {name: record_of(grid.backbone(name)) for name in self._used},
            "weights": {name: grid.backbone(name) for name in self._used},
        }

    def completion(self, run: Run) -> dict[str, Any]:
        """Return the arguments of `cdl.tables.completed_runs.completed_run` for a run."""
        teacher, further = self.grid.teacher_of(run), self.grid.unlabelled(run.dataset)
        sees = further and "unlabelled" in self.grid.dataset(run)
        return {
            "results": self.grid.files(run).results,
            "learner": self._learner(run),
            "teacher": self._learner(teacher) if teacher else None,
            "manifest": self.grid.packed(run.dataset).manifest,
            "images_per_class": self.grid.test_images_per_class(run.dataset),
            "unlabelled": further.manifest if further and sees else None,
        }

    def _learner(self, run: Run) -> dict[str, Any]:
        """Return what a learner's artifacts must be made of to be those of this configuration."""
        files = self.grid.files(run)
        return {
            "records": [record_of(files.task(t).learner) for t in range(run.n_tasks)],
            "spec": specification(self.grid, run).to_json(),
            "backbones": {name: record_of(self.grid.backbone(name)) for name in run.backbones},
        }

    def label_efficiency(self) -> Paths:
        """Return what the page shows of datasets at several levels of labels; nothing without."""
        found = [self.grid.layout.report.label_efficiency(dataset) for dataset in self.levels]
        kinds = {"tables": "csv", "figures": "svg", "records": "record"}
        named = {f"efficiency_{k}": [f[kind] for f in found] for k, kind in kinds.items()}
        return dict(named) if found else {}

    @cached_property
    def everything(self) -> list[str]:
        """All files that must exist: a deleted one is made again even if tables are newer."""
        grid = self.grid
        files = grid.layout.report.outputs(grid.comparisons, grid.datasets)
        for dataset in self.levels:
            files += grid.layout.report.label_efficiency(dataset).values()
        tried = {grid.packed_name(run.dataset) for run in grid.every}
        tried -= {grid.packed_name(name) for name in grid.datasets}
        for prepared in (name for name in self.sources if name not in tried):
            files += layout.packed(prepared).outputs()
        for name in self._used:
            files += [grid.backbone(name), record_of(grid.backbone(name))]
        for run in grid.runs:
            own = grid.files(run)
            files += [path for t in range(run.n_tasks) for path in own.task(t).outputs()]
            files += [own.results, own.predictions]
        for run in grid.deployed:
            files += grid.deployed_files(run).outputs()
        if grid.deployed:
            files += grid.layout.report.deployed(self.deployed_datasets)
        return files


def track_sidecars(inputs: Mapping[str, str | list[str]]) -> Paths:
    """Add the `records` that tell whether the large files among some inputs have changed.

    The record of a tensor file is the JSON beside it, that of packed data the manifest, which is
    named already. Both name a sha256, so touching or damaging a large file is no reason to run
    anything again: the job that opens it compares.
    """
    lists = [[v] if isinstance(v, str) else v for v in inputs.values()]
    tensors = [path for paths in lists for path in paths if path.endswith(".safetensors")]
    return {**inputs, "records": [record_of(path) for path in tensors]}
