"""What the jobs of a run read besides data, and the caches of what frozen models say.

With `compute.targets: cached` the queries of a backbone are files of their own, shared by all
configurations that see the same views, and so are a teacher's logits; without, jobs load the
frozen models themselves. Every folder here holds one file per task.
"""

from dataclasses import dataclass
from typing import Any

from grid import Grid, Run, digest

from cdl.specs import queries_spec, targets_spec, test_queries_spec


@dataclass(frozen=True)
class Cache:
    """A folder of caches: where it lies, what it is made of, and from what."""

    folder: str
    spec: dict[str, Any]
    dataset: str
    backbone: str
    teacher: Run | None = None  # whose targets they are


@dataclass(frozen=True)
class Needs:
    """What the jobs of a run read besides data and their own past.

    Attributes:
        backbones: names of the frozen ViTs that learning loads.
        teacher: whether learning opens the teacher's artifact.
        queries: of the learner.
        teacher_queries: of the teacher if they are not the learner's.
        targets: the teacher's logits.
        test_backbones: names of the ViTs that evaluation loads.
        test_queries: that evaluation reads.
    """

    backbones: list[str]
    teacher: bool
    queries: Cache | None
    teacher_queries: Cache | None
    targets: Cache | None
    test_backbones: list[str]
    test_queries: list[Cache]


def needs(grid: Grid, run: Run) -> Needs:
    """Decide what the jobs of a run read."""
    reads, cached = run.reads_query, grid.cached
    whole_teacher = run.teacher is not None and (run.reads_blocks or not cached)
    others = {run.query, run.teacher_query} - {None} if reads and not cached else set()
    own = reads and cached
    foreign = run.teacher_query if run.maps_prompts or whole_teacher else None
    mapped = {run.query, run.mapped_query} - {None} if reads else set()
    return Needs(
        backbones=sorted({run.backbone} | others | ({run.teacher} if whole_teacher else set())),
        teacher=run.teacher is not None and (whole_teacher or run.maps_prompts),
        queries=queries(grid, run, run.query) if own else None,
        teacher_queries=queries(grid, run, foreign)
        if own and foreign not in (None, run.query)
        else None,
        targets=targets(grid, run) if run.teacher is not None and not whole_teacher else None,
        test_backbones=sorted({run.backbone} | (set() if cached else mapped)),
        test_queries=[test_queries(grid, run, name) for name in sorted(mapped)] if cached else [],
    )


def queries(grid: Grid, run: Run, backbone: str) -> Cache:
    """Return the cache of a backbone's queries of a run's training views."""
    return _shared(grid, run, backbone, queries_spec(grid.spec(run), backbone))


def test_queries(grid: Grid, run: Run, backbone: str) -> Cache:
    """Return the cache of a backbone's queries of the test views."""
    n = grid.config["datasets"][run.dataset]["test_images_per_class"]
    return _shared(grid, run, backbone, test_queries_spec(grid.spec(run), backbone, n))


def targets(grid: Grid, run: Run) -> Cache:
    """Return the cache of the logits of a run's teacher for the run's training views."""
    teacher = grid.teacher_of(run)
    spec = targets_spec(grid.spec(run), grid.spec(teacher))
    return Cache(f"{grid.root}/{teacher.folder}", spec, run.dataset, teacher.backbone, teacher)


def target_queries(grid: Grid, run: Run) -> Cache | None:
    """Return the cache of the queries that a run's teacher reads when its targets are made."""
    return queries(grid, run, run.teacher_query) if run.reads_query else None


def _shared(grid: Grid, run: Run, backbone: str, spec: dict[str, Any]) -> Cache:
    made_from = digest([spec, grid.source(run.dataset), grid.backbone_source(backbone)])
    return Cache(f"results/queries/{backbone}-{made_from}", spec, run.dataset, backbone)
