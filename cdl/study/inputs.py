"""Caches and frozen models that the jobs of a run read.

With `compute.targets: cached`, the queries of a backbone and the logits of a teacher are separate
files, shared by all configurations with the same views. With `online`, jobs load the frozen
models.
"""

from dataclasses import dataclass

from cdl import layout
from cdl.layout import RunFiles
from cdl.spec import CacheSpec, LearnerSpec
from cdl.study.grid import Grid
from cdl.study.runs import Run
from cdl.study.specifications import specification


@dataclass(frozen=True)
class Cache:
    """The cache of one task, or of the test images.

    Attributes:
        folder: folder of the cache.
        spec: specification of its content.
        dataset: label of the dataset.
        backbone: name of the backbone that computes it.
        teacher: the run whose logits it stores; None for queries, and for answers.
    """

    folder: str
    spec: CacheSpec
    dataset: str
    backbone: str
    teacher: Run | None = None

    @property
    def kind(self) -> str | None:
        """`seen` for logits of all classes seen so far, `test` for test views, or `test_seen`."""
        if self.spec.kind == "queries" or self.spec.answers is not None:
            return None
        views = "test" if self.spec.views == "held_out" else ""
        columns = "seen" if self.spec.columns == "seen" else ""
        return "_".join(filter(None, (views, columns))) or None

    @property
    def name(self) -> str:
        """Folder of the cache, and its kind if it has one."""
        return f"{self.folder}/{self.kind}" if self.kind else self.folder

    def path(self, task: int) -> str:
        """Return the path of a teacher's logits of a task."""
        if self.spec.answers is not None:
            return layout.cached(self.folder, task)
        files = RunFiles(self.folder).task(task)
        kinds = {None: files.targets, "seen": files.targets_seen, "test": files.targets_test}
        return (kinds | {"test_seen": files.targets_test_seen})[self.kind]


Caches = tuple[Cache, ...]


@dataclass(frozen=True)
class Taught:
    """What a job reads to obtain a teacher's outputs for training views.

    Attributes:
        whole: whether it runs the teacher, since its outputs are not in a cache.
        teacher: whether it opens the teacher's artifact.
        targets: caches of the teacher's logits, by task.
        target_queries: caches of the queries from which `targets` are computed, by task.
        queries: caches of the teacher's queries that the job itself reads, by task.
        online: backbones of the queries that the job computes itself.
    """

    whole: bool = False
    teacher: bool = False
    targets: Caches = ()
    target_queries: Caches = ()
    queries: Caches = ()
    online: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Needs:
    """Caches and frozen models of a kind of job, in addition to data and earlier artifacts.

    Attributes:
        backbones: names of the frozen backbones that it loads.
        queries: caches of queries, for each backbone in the order of names, by task; of the test
            images: one cache for each backbone.
        taught: what it reads of a teacher.
    """

    backbones: list[str]
    queries: list[Caches]
    taught: Taught = Taught()

    @property
    def by_task(self) -> list[Caches]:
        """Caches of queries of training images, each by task; empty where none are read."""
        return [*self.queries, self.taught.queries, self.taught.target_queries]


def learning(grid: Grid, run: Run) -> Needs:
    """Return the inputs of the jobs that train a run, see `Grid.trained`."""
    reads, cached = run.prompts.needs_query, grid.cached
    labels = not run.distils.uses_teacher(run.distiller.options)
    taught = _taught(grid, run, run.query if reads else None, labels)
    online = {run.query} if reads and not cached else set()
    return Needs(
        backbones=_names(run.backbone, run.teacher if taught.whole else None, online, taught),
        queries=[_queries(grid, run, run.query)] if reads and cached else [],
        taught=taught,
    )


def aligning(grid: Grid, run: Run) -> Needs:
    """Return the inputs of the jobs that align the heads of a run.

    With `answers: test` the teacher's outputs are those of the test views.
    """
    names, how, taught = _test_names(run), run.method.alignment, Taught()
    if how is not None and run.statistics == "teacher":
        at_test = how["answers"] == "test"
        taught = _taught_at_test(grid, run) if at_test else _taught(grid, run, None, labels=True)
    found = sorted(names)
    online = set() if grid.cached else names
    return Needs(
        backbones=_names(run.backbone, run.teacher if taught.whole else None, online, taught),
        queries=[_queries(grid, run, name, test=True) for name in found] if grid.cached else [],
        taught=taught,
    )


def evaluating(grid: Grid, run: Run) -> Needs:
    """Return the inputs of the job that evaluates a run."""
    names = _test_names(run)
    return Needs(
        backbones=sorted({run.backbone} | (set() if grid.cached else names)),
        queries=[(_test_queries(grid, run, name),) for name in sorted(names)]
        if grid.cached
        else [],
    )


def _test_names(run: Run) -> set[str]:
    """Return the backbones of the queries of a learner's prompts at prediction."""
    names = (run.query, run.mapped_query) if run.prompts.needs_query else ()
    return {name for name in names if name}


def _names(backbone: str, teacher: str | None, online: set[str], taught: Taught) -> list[str]:
    return sorted({backbone, *online, *taught.online, *([teacher] if teacher else [])})


def _taught(grid: Grid, run: Run, own_query: str | None, labels: bool) -> Taught:
    """Return what a job reads to obtain the teacher's outputs for training views.

    Args:
        grid: grid of the run.
        run: a run; without a teacher, nothing is read.
        own_query: backbone of the queries that the job reads for the learner itself.
        labels: whether the teacher labels images, which needs logits only.
    """
    teacher = grid.teacher_of(run)
    if teacher is None and run.answers is None:
        return Taught()
    spec = specification(grid, run)
    columns = _label_columns(spec) if labels else spec.soft_columns
    if teacher is None:
        return Taught(targets=_targets(grid, run, columns))
    maps = run.distils.maps_prompts and not labels
    whole = not grid.cached or (run.reads_blocks and not labels)
    query = run.teacher_query if teacher.prompts.needs_query else None
    read = query if maps or whole else None
    return Taught(
        whole=whole,
        teacher=whole or maps,
        targets=() if whole else _targets(grid, run, columns),
        target_queries=_queries(grid, run, query) if query and not whole else (),
        queries=_queries(grid, run, read) if read and grid.cached and read != own_query else (),
        online=frozenset({query}) if query and not grid.cached else frozenset(),
    )


def _taught_at_test(grid: Grid, run: Run) -> Taught:
    """Return what a job reads to obtain the teacher's logits for the test views."""
    teacher = grid.teacher_of(run)
    if teacher is None:
        return _taught(grid, run, None, labels=True)  # answers are the same for all views
    query = teacher.query if teacher.prompts.needs_query else None
    if not grid.cached:
        return Taught(whole=True, teacher=True, online=frozenset({query} if query else ()))
    return Taught(
        targets=_targets(grid, run, _label_columns(specification(grid, run)), "held_out"),
        target_queries=_queries(grid, run, query, test=True) if query else (),
    )


def _label_columns(spec: LearnerSpec) -> str:
    """Return the columns of the logits by which a teacher labels images, see `Labelling`."""
    return spec.labelling.columns if spec.labelling else "task"


def _queries(grid: Grid, run: Run, backbone: str, test: bool = False) -> Caches:
    """Return the caches of a backbone's queries of a run's training images, by task.

    The views are those of training, or with `test` those of prediction.

    Streams that are equal up to a task share the cache of that task.
    """
    spec = specification(grid, run)
    after = [spec.until(t) for t in range(run.n_tasks)]
    specs = [s.queries(backbone, "held_out" if test else "train") for s in after]
    return tuple(_cache(grid, run, backbone, s) for s in specs)


def _test_queries(grid: Grid, run: Run, backbone: str) -> Cache:
    """Return the cache of a backbone's queries of the test images."""
    n = grid.test_images_per_class(run.dataset)
    return _cache(grid, run, backbone, specification(grid, run).test_queries(backbone, n))


def _targets(grid: Grid, run: Run, columns: str = "task", views: str = "train") -> Caches:
    """Return the caches of the teacher's logits for the training images of a run, by task.

    Those of a teacher that cdl does not train are the same for all views.
    """
    spec, tasks = specification(grid, run), range(run.n_tasks)
    if (answers := run.answers) is not None:
        specs = [spec.until(t).targets(answers, columns) for t in tasks]
        return tuple(_cache(grid, run, answers.name, own) for own in specs)
    teacher = grid.teacher_of(run)
    assert teacher is not None, "only a run with a teacher has targets"
    folder, theirs = grid.files(teacher).folder, specification(grid, teacher)
    specs = [spec.until(t).targets(theirs.until(t), columns, views) for t in tasks]
    return tuple(Cache(folder, own, run.dataset, teacher.backbone, teacher) for own in specs)


def _cache(grid: Grid, run: Run, backbone: str, spec: CacheSpec) -> Cache:
    """Return the cache of queries or answers, in a folder named after all that it depends on."""
    sources = [grid.source(run.dataset)]
    if spec.answers is None:
        sources.append(grid.backbone_source(backbone))
    if spec.unlabelled is not None and (unlabelled := grid.unlabelled_source(run.dataset)):
        sources.append(unlabelled)
    packed = grid.datasets[run.dataset].name
    if packed != sources[0]["source"]["name"]:  # it is in the path of the packed data
        sources.append({"packed": packed})
    name = layout.queries_name(backbone, spec.to_json(), *sources)
    return Cache(layout.queries(name), spec, run.dataset, backbone)
