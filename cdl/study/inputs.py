"""Caches and frozen models that the jobs of a run read.

With `compute.targets: cached`, the queries of a backbone and the logits of a teacher are separate
files, shared by all configurations with the same views. With `online`, jobs load the frozen
models.
"""

from dataclasses import dataclass

from cdl import layout
from cdl.spec import AligningQueriesSpec, HeldOutQueriesSpec, QueriesSpec, TargetsSpec
from cdl.study.grid import Grid
from cdl.study.runs import Run
from cdl.study.specifications import specification

QuerySpec = QueriesSpec | AligningQueriesSpec | HeldOutQueriesSpec


@dataclass(frozen=True)
class CacheSpec:
    """The cache of one task, or of the test images.

    Attributes:
        folder: folder of the cache.
        spec: specification of its content.
        dataset: label of the dataset.
        backbone: name of the backbone that computes it.
        teacher: the run whose logits it stores; None for queries.
    """

    folder: str
    spec: QuerySpec | TargetsSpec
    dataset: str
    backbone: str
    teacher: Run | None = None

    @property
    def views(self) -> QuerySpec:
        """Specification of the views that it is computed from."""
        return self.spec.views if isinstance(self.spec, TargetsSpec) else self.spec


Caches = tuple[CacheSpec, ...]


@dataclass(frozen=True)
class Needs:
    """Inputs of the jobs of a run, in addition to data and the artifacts of earlier tasks.

    Attributes:
        backbones: names of the frozen ViTs that learning loads.
        teacher: whether learning opens the teacher's artifact.
        queries: caches of the learner's queries, by task; empty if it reads none.
        teacher_queries: caches of the teacher's queries, by task, unless they are in `queries`.
        targets: caches of the teacher's logits, by task.
        target_queries: caches of the queries from which `targets` are computed, by task.
        aligning: caches of the queries that alignment reads, for each backbone in the order of
            names, by task.
        test_backbones: names of the ViTs that evaluation loads.
        test_queries: caches of the test queries that evaluation reads.
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
        """All caches of queries that the jobs of the run, or of its targets, read."""
        return [cache for caches in (*self.by_task, self.test_queries) for cache in caches]

    @property
    def by_task(self) -> list[Caches]:
        """Caches of queries of training images, each by task; empty where none are read."""
        return [self.queries, self.teacher_queries, self.target_queries, *self.aligning]


def needs(grid: Grid, run: Run) -> Needs:
    """Return the inputs of the jobs of a run."""
    reads, cached, teacher = run.prompts.needs_query, grid.cached, grid.teacher_of(run)
    teacher_reads = teacher is not None and teacher.prompts.needs_query
    teacher_query = run.teacher_query if teacher_reads else None
    whole_teacher = teacher is not None and (run.reads_blocks or not cached)
    test_names = {name for name in (run.query, run.mapped_query) if name and reads}
    online = set() if cached else {run.query if reads else None, teacher_query} | test_names
    loaded = {run.backbone, *online} | ({run.teacher} if whole_teacher else set())
    while_learning = teacher_query if run.distils.maps_prompts or whole_teacher else None
    shared = reads and while_learning == run.query
    with_targets = teacher is not None and not whole_teacher
    return Needs(
        backbones=sorted(name for name in loaded if name),
        teacher=teacher is not None and (whole_teacher or run.distils.maps_prompts),
        queries=_queries(grid, run, run.query) if reads and cached else (),
        teacher_queries=_queries(grid, run, while_learning)
        if cached and while_learning is not None and not shared
        else (),
        targets=_targets(grid, run) if with_targets else (),
        target_queries=_queries(grid, run, teacher_query) if with_targets and teacher_query else (),
        aligning=[_queries(grid, run, name, aligning=True) for name in sorted(test_names)]
        if cached and run.method.alignment is not None
        else [],
        test_backbones=sorted({run.backbone} | (set() if cached else test_names)),
        test_queries=[_test_queries(grid, run, name) for name in sorted(test_names)]
        if cached
        else [],
    )


def _queries(grid: Grid, run: Run, backbone: str, aligning: bool = False) -> Caches:
    """Return the caches of a backbone's queries of a run's training images, by task.

    Streams that are equal up to a task share the cache of that task.
    """
    spec = specification(grid, run)
    after = [spec.until(t) for t in range(run.n_tasks)]
    specs = [s.aligning_queries(backbone) if aligning else s.queries(backbone) for s in after]
    return tuple(_query_cache(grid, run, backbone, s) for s in specs)


def _test_queries(grid: Grid, run: Run, backbone: str) -> CacheSpec:
    """Return the cache of a backbone's queries of the test images."""
    n = grid.test_images_per_class(run.dataset)
    return _query_cache(grid, run, backbone, specification(grid, run).test_queries(backbone, n))


def _targets(grid: Grid, run: Run) -> Caches:
    """Return the caches of the teacher's logits for the training images of a run, by task."""
    teacher = grid.teacher_of(run)
    assert teacher is not None, "only a run with a teacher has targets"
    folder = grid.files(teacher).folder
    student_spec, teacher_spec = (specification(grid, r) for r in (run, teacher))
    tasks = range(run.n_tasks)
    specs = [student_spec.until(t).targets(teacher_spec.until(t)) for t in tasks]
    return tuple(CacheSpec(folder, s, run.dataset, teacher.backbone, teacher) for s in specs)


def _query_cache(grid: Grid, run: Run, backbone: str, spec: QuerySpec) -> CacheSpec:
    """Return the cache with a specification, in a folder named after all that it depends on."""
    sources = [grid.source(run.dataset), grid.backbone_source(backbone)]
    if spec.unlabelled is not None and (unlabelled := grid.unlabelled_source(run.dataset)):
        sources.append(unlabelled)
    name = layout.queries_name(backbone, spec.to_json(), *sources)
    return CacheSpec(layout.queries(name), spec, run.dataset, backbone)
