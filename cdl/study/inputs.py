"""What the jobs of a run read besides data and their own past: caches or the models themselves.

With `compute.targets: cached` the queries of a backbone are files of their own, shared by all
configurations that see the same views, and so are a teacher's logits; without, jobs load the
frozen models themselves.
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
