"""Specify a learner, and the caches that it reads: all that fixes their numbers, typed.

Planning makes specifications, jobs take them, artifacts and Snakemake's parameters store them as
JSON. Fields are in the order of the JSON's keys, which Snakemake compares with those of finished
jobs; a field whose default is None has no key where it is None. Does not import torch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from types import NoneType, UnionType
from typing import Any, ClassVar, Self, get_args, get_origin

from cdl.distillers import DISTILLERS, DistillerFacts
from cdl.methods import PROMPTS, PromptFacts
from cdl.runtime.errors import CdlError

BF16 = 2  # raised when numbers in bf16 change and no others; 1: attention by torch's fused kernel
_OUTSIDE = {"outside": True}  # marks a field that is no part of the JSON
_WORDS = {int: "an integer", float: "a number", str: "text", NoneType: "null", tuple: "a list"}


@dataclass(frozen=True)
class Part:
    """A part of a specification, to JSON and back."""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        found = {}
        for name, _, optional in _keys(type(self)):
            value = getattr(self, name)
            if value is not None or not optional:
                found[name] = _plain(value)
        return found

    @classmethod
    def from_json(cls, value: Any, where: str = "spec") -> Self:
        """Read JSON values.

        Args:
            value: of `to_json`.
            where: what it is, for messages.

        Raises:
            CdlError: a field is missing, unknown or has an invalid value.
        """
        _check_mapping(value, where)
        keys = _keys(cls)
        for unknown in sorted(value.keys() - {name for name, _, _ in keys}):
            raise CdlError(f"{where}.{unknown}: unknown field")
        for name, _, optional in keys:
            if name not in value and not optional:
                raise CdlError(f"{where}.{name}: is missing")
        given = {n: _read(kind, value[n], f"{where}.{n}") for n, kind, _ in keys if n in value}
        return cls(**given)


def _fields(cls: type[Part]) -> list[tuple[str, Any, bool]]:
    """Return name, type and whether it may be absent, of every field in the JSON."""
    return [(f.name, f.type, f.default is None) for f in fields(cls) if f.metadata != _OUTSIDE]


_keys: Callable[[Any], list[tuple[str, Any, bool]]] = cache(_fields)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    if type(value) in _WORDS:
        return value
    return value.to_json() if isinstance(value, Part) else dict(value)


@cache
def _alternatives(kind: Any) -> list[tuple[Any, Any]]:
    """Return the types that a field may have, each with what it is made of."""
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    return [(get_origin(one) or one, get_args(one)) for one in kinds]


def _read(kind: Any, value: Any, where: str) -> Any:
    """Return a JSON value as a type that a field may have; numbers stay integers or floats."""
    given = type(value)
    for outer, inner in _alternatives(kind):
        if outer is tuple and isinstance(value, list | tuple):
            if ... not in inner and len(value) != len(inner):
                raise CdlError(f"{where}: invalid value {value!r}; expected {len(inner)} values")
            return tuple(_read(inner[0], v, f"{where}.{i}") for i, v in enumerate(value))
        if isinstance(value, dict) and outer is Mapping:
            return {k: _read(inner[1], v, f"{where}.{k}") for k, v in value.items()}
        if isinstance(value, dict) and issubclass(outer, Part):
            return outer.from_json(value, where)
        if given is outer or (outer is float and given is int):
            return value
    words = {_WORDS.get(outer, "a mapping"): None for outer, _ in _alternatives(kind)}
    raise CdlError(f"{where}: invalid value {value!r}; expected {' or '.join(words)}")


def _check_mapping(value: Any, where: str) -> None:
    if not isinstance(value, dict):
        raise CdlError(f"{where}: invalid value {value!r}; expected a mapping")


@dataclass(frozen=True)
class _Block(Part):
    """A method or distiller by its name, with its options: what its class takes, plain JSON."""

    name: str
    options: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return name and options in one mapping."""
        return {"name": self.name, **self.options}

    @classmethod
    def from_json(cls, value: Any, where: str = "spec") -> Self:
        """Read a mapping of name and options; raise `CdlError` as `Part.from_json`."""
        _check_mapping(value, where)
        name = _read(str, value.get("name"), f"{where}.name")
        return cls(name, {k: v for k, v in value.items() if k != "name"})


class Method(_Block):
    """A prompt method."""

    @property
    def facts(self) -> PromptFacts:
        """What planning knows of it."""
        return PROMPTS[self.name]


class Distiller(_Block):
    """A distiller."""

    @property
    def facts(self) -> DistillerFacts:
        """What planning knows of it."""
        return DISTILLERS[self.name]


@dataclass(frozen=True)
class Domains(Part):
    """Tasks that are domains: what makes them, always `domain`, and their names in order."""

    by: str
    domains: tuple[str, ...]


@dataclass(frozen=True)
class Stream(Part):
    """The stream of tasks.

    tasks: see `cdl.data.order.sizes_of`.
    class_order: `natural`, `seeded`, or classes by label or name.
    """

    tasks: int | tuple[int, ...] | Domains
    class_order: str | tuple[int | str, ...]

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains that are the tasks; none where classes make tasks."""
        return self.tasks.domains if isinstance(self.tasks, Domains) else ()

    def until(self, task: int) -> "Stream":
        """Return the stream up to a task, counted from 0.

        A number of equal tasks stays, since they are cut from all classes of the dataset.
        """
        if isinstance(self.tasks, int):
            return self
        if isinstance(self.tasks, Domains):
            return replace(self, tasks=replace(self.tasks, domains=self.domains[: task + 1]))
        tasks, order = self.tasks[: task + 1], self.class_order
        return Stream(tasks, order if isinstance(order, str) else order[: sum(tasks)])


@dataclass(frozen=True)
class View(Part):
    """How images become inputs, see `cdl.data.views.Views`."""

    crop_ratio: tuple[float, float]
    crop_scale: tuple[float, float]
    flip: float
    size: int
    test_resize: int | None


@dataclass(frozen=True)
class HeldOutView(Part):
    """How test images become inputs: neither cropped at random nor flipped."""

    size: int
    test_resize: int | None


@dataclass(frozen=True)
class Labels(Part):
    """Which images have a label, see `cdl.data.labels.known_labels`; None: not given."""

    per_class: int | None = None
    fraction: float | None = None


@dataclass(frozen=True)
class Unlabelled(Part):
    """Further images without labels: in `every` task, or `cut` among the number of tasks `of`."""

    tasks: str
    of: int | None = None


@dataclass(frozen=True)
class Training(Part):
    """How a task is optimised.

    batch_size: images with a label per step.
    betas: of Adam.
    lr: at the start of a task.
    unlabelled_ratio: images without a label per step, as a multiple of `batch_size`.
    schedule: see `cdl.training.loop.learning_rate`.
    """

    batch_size: int
    betas: tuple[float, float]
    epochs: int
    lr: float
    unlabelled_ratio: float | None = None
    schedule: str = field(kw_only=True)


@dataclass(frozen=True)
class Passes(Part):
    """What of the training fixes which views there are."""

    epochs: int
    batch_size: int
    unlabelled_ratio: ClassVar[None] = None


@dataclass(frozen=True)
class Alignment(Part):
    """How heads are aligned after a task.

    statistic: `covariance` (unbiased, with a ridge on its diagonal), `variance` (its diagonal)
        or `centroid` (biased variance; the ridge is added when sampling).
    samples: drawn of each class and epoch, and rows of a step.
    steps: of an epoch, as many as classes `seen` or as `earlier` ones; the rest is not used.
    mean_shrink: `s`: the mean of a class of task `u` counts `1 - s + s (u + 1) / (t + 1)` times.
    logit_norm: `n`: logits are divided by `n` times the mean norm of a task's logits; 0: not.
    optimizer: `sgd` or `adamw`, with `lr`, `momentum` (of sgd) and `weight_decay`.
    epochs: of the alignment.
    schedule: `cosine` to 0 over the epochs, `lagged_cosine` over iterations, see
        `cdl.training.schedules`, or `constant`.
    next_task: the next task goes on from the `aligned` heads or from the `trained` ones.
    """

    statistic: str
    samples: int
    steps: str
    mean_shrink: float
    logit_norm: float
    optimizer: str
    lr: float
    momentum: float
    weight_decay: float
    epochs: int
    schedule: str
    next_task: str

    def mean_factors(self, sizes: Sequence[int]) -> list[float]:
        """Return what each class's mean is multiplied by, from the sizes of the tasks seen."""
        shrink, n = self.mean_shrink, len(sizes)
        factors = [1 - shrink + shrink * (task + 1) / n for task in range(n)]
        return [factor for factor, size in zip(factors, sizes, strict=True) for _ in range(size)]


@dataclass(frozen=True, kw_only=True)
class QueriesSpec(Part):
    """What fixes a backbone's queries of a learner's training views of a task."""

    numerics: int
    seed: int
    student_views: str | None = None
    stream: Stream
    images_per_class: int | None
    unlabelled: Unlabelled | None = None
    view: View
    normalization: str
    cache_dtype: str | None = None
    precision: str | None = None
    bf16: int | None = None
    sizes: Mapping[str, int] | None = None
    backbone: str
    training: Passes
    labels: ClassVar[None] = None
    teacher: ClassVar[None] = None


@dataclass(frozen=True, kw_only=True)
class HeldOutQueriesSpec(Part):
    """What fixes a backbone's queries of the test views."""

    numerics: int
    normalization: str
    precision: str | None = None
    bf16: int | None = None
    sizes: Mapping[str, int] | None = None
    backbone: str
    view: HeldOutView
    images_per_class: int | None
    cache_dtype: str | None = None
    unlabelled: ClassVar[None] = None


@dataclass(frozen=True, kw_only=True)
class AligningQueriesSpec(Part):
    """What fixes the queries that alignment reads: of training images, seen as at test.

    They are not rounded, and depend on no epochs and batches. `views` is `test`, which tells the
    JSON from that of a `QueriesSpec`.
    """

    numerics: int
    normalization: str
    precision: str | None = None
    bf16: int | None = None
    sizes: Mapping[str, int] | None = None
    backbone: str
    view: HeldOutView
    seed: int
    stream: Stream
    images_per_class: int | None
    views: str
    cache_dtype: ClassVar[None] = None
    student_views: ClassVar[None] = None
    unlabelled: ClassVar[None] = None
    labels: ClassVar[None] = None
    teacher: ClassVar[None] = None
    training: ClassVar[None] = None


@dataclass(frozen=True, kw_only=True)
class LearnerSpec(Part):
    """All that fixes a learner's numbers after a task: what later tasks add is not part of it.

    numerics: `cdl.NUMERICS`.
    role: `teacher` or `student`.
    backbone: name of its frozen ViT.
    query: name of the backbone whose query its prompts read.
    teacher: name of its teacher's backbone; None without a teacher.
    images_per_class: training images; None for all.
    normalization: see `cdl.backbones.frozen`.
    auxiliary_weight: see `cdl.models.learner.Learner`.
    external: numerics by name, of method and distiller from other packages.
    revised: numerics by name, of our own that have changed.
    labels: which images have a label; None for all.
    teacher_labels: `all` where its teacher saw all labels.
    unlabelled: further images without labels.
    n_tasks: how many tasks there are, where something is shared by all of them.
    alignment: of heads after a task.
    student_views: `fresh` where the views are not its teacher's.
    teacher_method: of its teacher, where it is another one.
    apt_teacher: `previous` or `merged`, of a teacher that merges, see `cdl.methods.apt`.
    sizes: side of the input by backbone, where it is not the view's.
    cache_dtype: of cached queries and targets; None: float32.
    precision: of frozen weights, one word for all backbones or by backbone; None: fp32.
    bf16: `BF16`, where a precision is given.
    teacher_query: name of the backbone whose query the teacher's prompts read, where its distiller
        maps them; else None. Follows from the specification of its teacher; not in the JSON, but
        in the artifact's metadata under the same name.
    """

    numerics: int
    seed: int
    role: str
    backbone: str
    query: str
    teacher: str | None
    method: Method
    distiller: Distiller
    stream: Stream
    images_per_class: int | None
    view: View
    normalization: str
    auxiliary_weight: float
    training: Training
    external: Mapping[str, int] | None = None
    revised: Mapping[str, int] | None = None
    labels: Labels | None = None
    teacher_labels: str | None = None
    unlabelled: Unlabelled | None = None
    n_tasks: int | None = None
    alignment: Alignment | None = None
    student_views: str | None = None
    teacher_method: Method | None = None
    apt_teacher: str | None = None
    sizes: Mapping[str, int] | None = None
    cache_dtype: str | None = None
    precision: str | Mapping[str, str] | None = None
    bf16: int | None = None
    teacher_query: str | None = field(default=None, compare=False, metadata=_OUTSIDE)

    @classmethod
    def from_json(cls, value: Any, where: str = "spec", teacher_query: str | None = None) -> Self:
        """Read JSON values as `Part.from_json`; `teacher_query` is not among them."""
        return replace(super().from_json(value, where), teacher_query=teacher_query)

    def until(self, task: int) -> "LearnerSpec":
        """Return the specification after a task, counted from 0."""
        stream = self.stream.until(task)
        return self if stream is self.stream else replace(self, stream=stream)

    def taught_by(self, teacher: "LearnerSpec | None") -> "LearnerSpec":
        """Return it with the `teacher_query` that follows from its teacher."""
        maps = teacher is not None and self.distiller.facts.maps_prompts
        return replace(self, teacher_query=teacher.query if teacher and maps else None)

    @property
    def keys(self) -> tuple[str | int, ...]:
        """What fixes its start: equal for all students of a pair, not for teachers."""
        return self.seed, self.role, self.backbone

    def queries(self, backbone: str) -> QueriesSpec:
        """Return what fixes a backbone's queries of its training views."""
        return QueriesSpec(
            numerics=self.numerics,
            seed=self.seed,
            student_views=self.student_views,
            stream=self.stream,
            images_per_class=self.images_per_class,
            unlabelled=self.unlabelled,
            view=self.view,
            normalization=self.normalization,
            cache_dtype=self.cache_dtype,
            backbone=backbone,
            training=Passes(self.training.epochs, self.training.batch_size),
            **self._of(backbone),
        )

    def test_queries(self, backbone: str, images_per_class: int | None) -> HeldOutQueriesSpec:
        """Return what fixes a backbone's queries of the test views."""
        return HeldOutQueriesSpec(
            numerics=self.numerics,
            normalization=self.normalization,
            backbone=backbone,
            view=HeldOutView(self.view.size, self.view.test_resize),
            images_per_class=images_per_class,
            cache_dtype=self.cache_dtype,
            **self._of(backbone),
        )

    def aligning_queries(self, backbone: str) -> AligningQueriesSpec:
        """Return what fixes a backbone's queries that its alignment reads."""
        return AligningQueriesSpec(
            numerics=self.numerics,
            normalization=self.normalization,
            backbone=backbone,
            view=HeldOutView(self.view.size, self.view.test_resize),
            seed=self.seed,
            stream=self.stream,
            images_per_class=self.images_per_class,
            views="test",
            **self._of(backbone),
        )

    def targets(self, teacher: "LearnerSpec") -> "TargetsSpec":
        """Return what fixes a teacher's targets for its training views."""
        return TargetsSpec(teacher, self.queries(teacher.query), self.apt_teacher)

    def _of(self, backbone: str) -> dict[str, Any]:
        """Return what a backbone has of its own: precision, side of its input."""
        precision, size = precision_of(self, backbone), (self.sizes or {}).get(backbone)
        own: dict[str, Any] = {} if precision == "fp32" else {"precision": precision, "bf16": BF16}
        return own | ({} if size is None else {"sizes": {backbone: size}})


@dataclass(frozen=True)
class TargetsSpec(Part):
    """What fixes a teacher's targets for a student's training views of a task."""

    teacher: LearnerSpec
    views: QueriesSpec
    apt_teacher: str | None = None


TaskSpec = LearnerSpec | QueriesSpec | AligningQueriesSpec  # of a task's images and their views
AnySpec = TaskSpec | HeldOutQueriesSpec  # of what backbones compute


def queries_from_json(value: Any, where: str = "spec") -> QueriesSpec | AligningQueriesSpec:
    """Read the specification of queries of training images; raise as `Part.from_json`."""
    _check_mapping(value, where)
    kind = AligningQueriesSpec if "views" in value else QueriesSpec
    return kind.from_json(value, where)


def precision_of(spec: AnySpec, backbone: str) -> str:
    """Return the precision of a backbone's frozen weights, `fp32` or `bf16`."""
    given = spec.precision or "fp32"
    return given if isinstance(given, str) else given[backbone]
