"""Typed specifications of learners and caches.

A specification contains everything that determines the numbers of a learner or cache. Planning
creates specifications, jobs read them, and artifacts and Snakemake's parameters store them as JSON.
Fields are in the order of the JSON keys, which Snakemake compares with those of finished jobs. A
field with the default None has no key if it is None. If the form of the JSON changes, increase
`FORMAT`. Does not import torch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from types import NoneType, UnionType
from typing import Any, ClassVar, Self, cast, get_args, get_origin

from cdl.data.modalities import DEFAULT, modality
from cdl.distillers import DISTILLERS, DistillerFacts
from cdl.methods import PROMPTS, PromptFacts
from cdl.runtime.errors import CdlError

FORMAT = 2  # of the stored specifications; 1: up to version 0.2, without a number
BF16 = 2  # increase if only numbers in bf16 change; 1: attention by torch's fused kernel
ImagesPerClass = int | None | tuple[int | None, ...]
_OUTSIDE = {"outside": True}  # marks a field that is not in the JSON
_WORDS = {int: "an integer", float: "a number", str: "text", NoneType: "null", tuple: "a list"}


@dataclass(frozen=True)
class Part:
    """Base class of specifications; converts to JSON and back."""

    def to_json(self) -> dict[str, Any]:
        """Return the specification as plain JSON values."""
        found = {}
        for name, _, optional in _keys(type(self)):
            value = getattr(self, name)
            if value is not None or not optional:
                found[name] = _to_plain(value)
        return found

    @classmethod
    def from_json(cls, value: Any, where: str = "spec") -> Self:
        """Create a specification from JSON values.

        Args:
            value: result of `to_json`.
            where: name of the value in error messages.

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
        given = {n: _convert(kind, value[n], f"{where}.{n}") for n, kind, _ in keys if n in value}
        return cls(**given)


def _fields(cls: type[Part]) -> list[tuple[str, Any, bool]]:
    """Return name, type and whether it is optional, for every field in the JSON."""
    return [(f.name, f.type, f.default is None) for f in fields(cls) if f.metadata != _OUTSIDE]


_keys: Callable[[Any], list[tuple[str, Any, bool]]] = cache(_fields)


def _to_plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    if type(value) in _WORDS:
        return value
    return value.to_json() if isinstance(value, Part) else dict(value)


@cache
def _allowed_types(kind: Any) -> list[tuple[Any, Any]]:
    """Return the allowed types of a field, each with the types of its elements."""
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    return [(get_origin(one) or one, get_args(one)) for one in kinds]


def _convert(kind: Any, value: Any, where: str) -> Any:
    """Convert a JSON value to an allowed type; integers stay integers."""
    given = type(value)
    for outer, inner in _allowed_types(kind):
        if outer is tuple and isinstance(value, list | tuple):
            if ... not in inner and len(value) != len(inner):
                raise CdlError(f"{where}: invalid value {value!r}; expected {len(inner)} values")
            return tuple(_convert(inner[0], v, f"{where}.{i}") for i, v in enumerate(value))
        if isinstance(value, dict) and outer is Mapping:
            return {k: _convert(inner[1], v, f"{where}.{k}") for k, v in value.items()}
        if isinstance(value, dict) and issubclass(outer, Part):
            return outer.from_json(value, where)
        if given is outer or (outer is float and given is int):
            return value
    words = {_WORDS.get(outer, "a mapping"): None for outer, _ in _allowed_types(kind)}
    raise CdlError(f"{where}: invalid value {value!r}; expected {' or '.join(words)}")


def _check_mapping(value: Any, where: str) -> None:
    if not isinstance(value, dict):
        raise CdlError(f"{where}: invalid value {value!r}; expected a mapping")


@dataclass(frozen=True)
class _Block(Part):
    """A method or distiller: its name, and the arguments of its class as plain JSON."""

    name: str
    options: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return name and options in one mapping."""
        return {"name": self.name, **self.options}

    @classmethod
    def from_json(cls, value: Any, where: str = "spec") -> Self:
        """Create it from name and options; raise `CdlError` as `Part.from_json`."""
        _check_mapping(value, where)
        name = _convert(str, value.get("name"), f"{where}.name")
        return cls(name, {k: v for k, v in value.items() if k != "name"})


class Method(_Block):
    """A prompt method."""

    @property
    def facts(self) -> PromptFacts:
        """Facts for planning."""
        return PROMPTS[self.name]


class Distiller(_Block):
    """A distiller."""

    @property
    def facts(self) -> DistillerFacts:
        """Facts for planning."""
        return DISTILLERS[self.name]


@dataclass(frozen=True)
class Domains(Part):
    """Tasks that are domains, by their names in order; `by` is `domain`."""

    by: str
    domains: tuple[str, ...]


@dataclass(frozen=True)
class OrderSeed(Part):
    """A class order that is drawn with a seed of its own: that of `seeded` runs with this seed."""

    seed: int


@dataclass(frozen=True)
class Stream(Part):
    """The stream of tasks.

    tasks: see `cdl.data.order.sizes_of`.
    class_order: `natural`, `seeded` by the run's seed or by another one, `seeded_tasks`, or classes
        by label or name; see `cdl.data.stream.Stream.build`.
    """

    tasks: int | tuple[int, ...] | Domains
    class_order: str | OrderSeed | tuple[int | str, ...]

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the domains, one per task; empty if tasks are made of classes."""
        return self.tasks.domains if isinstance(self.tasks, Domains) else ()

    def until(self, task: int) -> "Stream":
        """Return the stream up to a task, counted from 0.

        If `tasks` is a number, the stream does not change: its tasks divide all classes of the
        dataset.
        """
        if isinstance(self.tasks, int):
            return self
        if isinstance(self.tasks, Domains):
            return replace(self, tasks=replace(self.tasks, domains=self.domains[: task + 1]))
        tasks, order = self.tasks[: task + 1], self.class_order
        return Stream(tasks, order[: sum(tasks)] if isinstance(order, tuple) else order)


@dataclass(frozen=True)
class InputView(Part):
    """Transformation of a dataset's items to inputs of a backbone.

    Its fields are those of the modality, whose name is the field `modality` unless it is `DEFAULT`.
    """

    modality: ClassVar[str]

    @classmethod
    def from_json(cls, value: Any, where: str = "spec") -> Self:
        """Create the view of the modality that the value names; raise as `Part.from_json`."""
        if cls is InputView:
            _check_mapping(value, where)
            facts = modality(value.get("modality", DEFAULT), f"{where}.modality")
            return cast(Self, facts.part(value).from_json(value, where))
        return super().from_json(value, where)

    @classmethod
    def of(cls, name: str, options: Mapping[str, Any]) -> "InputView":
        """Return the view of a modality from a configuration's `view`."""
        marked = {} if name == DEFAULT else {"modality": name}
        return InputView.from_json({**marked, **options}, "view")

    @property
    def input_size(self) -> int:
        """Size of an input: pixels of a side, or tokens."""
        raise NotImplementedError

    def held_out(self) -> "InputView":
        """Return the transformation at prediction, without random changes."""
        raise NotImplementedError


@dataclass(frozen=True)
class _ImageView(InputView):
    """What both views of images have."""

    modality: ClassVar[str] = "images"

    @property
    def input_size(self) -> int:
        size: int = self.size  # type: ignore[attr-defined]
        return size


@dataclass(frozen=True)
class View(_ImageView):
    """Transformation of training images to inputs, see `cdl.data.views.Views`."""

    crop_ratio: tuple[float, float]
    crop_scale: tuple[float, float]
    flip: float
    size: int
    test_resize: int | None

    def held_out(self) -> "HeldOutView":
        """Return the transformation at prediction."""
        return HeldOutView(self.size, self.test_resize)


@dataclass(frozen=True)
class HeldOutView(_ImageView):
    """Transformation of test images to inputs: without random crops and flips."""

    size: int
    test_resize: int | None


@dataclass(frozen=True)
class Labels(Part):
    """Which images have a label, see `cdl.data.labels.known_labels`; None: not set.

    seed: of the draw; None: the run's seed.
    others: `unused` if no learner uses the other images; None: they are unlabelled images.
    """

    per_class: int | None = None
    fraction: float | None = None
    seed: int | None = None
    others: str | None = None


@dataclass(frozen=True)
class Unlabelled(Part):
    """Unlabelled images: the same in `every` task, or `cut` into `of` tasks."""

    tasks: str
    of: int | None = None


@dataclass(frozen=True)
class Sgd(Part):
    """Stochastic gradient descent on all trained parameters, instead of Adam."""

    momentum: float
    weight_decay: float


@dataclass(frozen=True)
class Training(Part):
    """Optimisation of a task; a method without gradient steps has no `betas`, `lr`, `schedule`.

    batch_size: labelled images per step.
    betas: coefficients of Adam.
    lr: learning rate at the start of a task.
    unlabelled_ratio: unlabelled images per step, as a multiple of `batch_size`.
    sgd: options of SGD; None: Adam without weight decay.
    schedule: see `cdl.training.loop.learning_rate`.
    """

    batch_size: int
    betas: tuple[float, float] | None = None
    epochs: int = field(kw_only=True)
    lr: float | None = None
    unlabelled_ratio: float | None = None
    sgd: Sgd | None = None
    schedule: str | None = None


@dataclass(frozen=True)
class Passes(Part):
    """The settings of training that determine the views."""

    epochs: int
    batch_size: int


class Alignment(Part):
    """What heads become after a task: `SampledAlignment` trains them, `ClassMeans` replaces them.

    Its fields are those that both have.
    """

    kind: str
    statistic: str
    next_task: str
    label_classes: str
    answers: str
    drift: str
    labels: str | None

    @classmethod
    def from_json(cls, value: Any, where: str = "spec") -> Self:
        """Create the one that the field `kind` names; raise `CdlError` as `Part.from_json`."""
        if cls is Alignment:
            _check_mapping(value, where)
            means = value.get("kind") == "class_means"
            kind: type[Alignment] = ClassMeans if means else SampledAlignment
            return cast(Self, kind.from_json(value, where))
        return super().from_json(value, where)


@dataclass(frozen=True)
class ClassMeans(Alignment):
    """Heads whose rows are the class means of the learner's own features; nothing is trained.

    Logits are cosines times the default scale of `cdl.methods.heads.CosineHead`, as in
    `simple_cil`. Other fields are as in `SampledAlignment`.

    kind: `class_means`.
    statistic: `centroid`, the variance that `drift: sdc` weighs the images with.
    next_task: `trained`.
    """

    kind: str
    statistic: str
    next_task: str
    label_classes: str
    answers: str
    drift: str
    labels: str | None = None


@dataclass(frozen=True)
class SampledAlignment(Alignment):
    """Training of heads after a task on samples of the features of all classes seen.

    kind: `sampled`.
    statistic: `covariance` (unbiased, with a ridge on its diagonal), `variance` (its diagonal)
        or `centroid` (biased variance; the ridge is added when sampling).
    samples: number drawn per class and epoch, and number of rows per step.
    steps: steps per epoch: the number of classes `seen`, or of `earlier` classes; further samples
        are not used.
    mean_shrink: `s`: the mean of a class of task `u` is multiplied by
        `1 - s + s (u + 1) / (t + 1)`, see `cdl.device.aligning.mean_factors`.
    logit_norm: `n`: logits are divided by `n` times the mean norm of a task's logits; 0: never.
    optimizer: `sgd` or `adamw`, with `lr`, `momentum` (sgd only) and `weight_decay`.
    epochs: epochs of the alignment.
    schedule: `cosine` to 0 over the epochs, `lagged_cosine` over iterations, see
        `cdl.device.schedules`, or `constant`.
    next_task: the next task starts from the `aligned` or the `trained` heads.
    labels: classes of the images without a label: `own` (such images are not used), `self` (the
        learner's most likely class), `nearest` (the class with the nearest mean feature of its
        labelled images) or `teacher`; None: `teacher` with a teacher, else `own`.
    label_classes: among which that class is chosen: those of the `task`, or all `seen` so far, so
        that nothing has to be known about which task an image is of; images that get a class of an
        earlier task are left out.
    answers: views that the teacher classifies: `train_views` (mean over them) or `test`.
    drift: `sdc`, `ssiat` or `ssiat_as_released`: means of earlier classes move with the features
        of the task's images, see `cdl.training.alignment.compensated`; `none`: they stay.
    """

    kind: str
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
    label_classes: str
    answers: str
    drift: str
    labels: str | None = None


def labelled_by(labels: str | None, taught: bool) -> str:
    """Return whose classes unlabelled images have in alignment, from its `labels`.

    The default is the teacher's for a learner that is taught by one, else `own`: none.
    """
    return labels or ("teacher" if taught else "own")


@dataclass(frozen=True)
class Answers(Part):
    """A teacher that cdl does not train: its answers for items, see `cdl.data.answers`.

    name: of the teacher in folders and tables.
    sha256: of the file, or of the files of a classifier.
    values: `probabilities` or `logits`, or `classifier`: logits that cdl computes with a model.
    missing: what becomes of training items without an answer: `refused`, or `unlabelled`: only
        their own label, if they have one, is learnt.
    """

    name: str
    sha256: str
    values: str
    missing: str = "refused"

    @property
    def query(self) -> str:
        """Backbone of the query of its prompts, of which it has none."""
        return ""


@dataclass(frozen=True)
class Labelling:
    """How the images without a label get a class, for a head that is computed in closed form.

    by: `own`, `self`, `nearest` or `teacher`, see `Alignment.labels`.
    columns: see `Alignment.label_classes`.
    answers: see `Alignment.answers`.
    """

    by: str
    columns: str = "task"
    answers: str = "train_views"


@dataclass(frozen=True, kw_only=True)
class LearnerSpec(Part):
    """Everything that determines a learner's numbers after a task.

    It excludes the parameters of later tasks.

    format: `FORMAT`.
    numerics: `cdl.NUMERICS`.
    role: `teacher` or `student`.
    backbone: name of the frozen backbone.
    query: name of the backbone that computes the query of the prompts.
    teacher: name of the teacher's backbone, or of `answers`; None without a teacher.
    images_per_class: number of training images per class; None for all. A tuple has one of these
        for each task, if the tasks so far differ.
    normalization: see `cdl.backbones.frozen`.
    auxiliary_weight: see `cdl.models.learner.Learner`.
    external: numerics by name, of a method and distiller from other packages.
    revised: numerics by name, of a built-in method and distiller that have changed.
    labels: which images have a label; None for all.
    teacher_labels: `all` if the teacher was trained with all labels.
    unlabelled: unlabelled images.
    n_tasks: number of tasks, if all tasks share something.
    alignment: what heads become after a task, if heads are aligned. The specification of the
        training has it only if the next task starts from the aligned heads.
    teacher_alignment: alignment of the teacher's heads if it is another one; `none` if they are
        not aligned.
    student_views: `fresh` if the views differ from the teacher's.
    views: `per_draw` if an image that is drawn several times in an epoch has a new view each time.
    teacher_method: method of the teacher, if it is another one.
    apt_teacher: `previous` or `merged`, for a teacher that merges, see `cdl.methods.apt`.
    sizes: side of the input in pixels by backbone, if it differs from the view's.
    cache_dtype: dtype of cached queries and targets; None: float32.
    precision: precision of frozen weights, for all backbones or by backbone; None: fp32.
    bf16: `BF16`, if a precision is set.
    answers: the teacher, if cdl does not train it.
    teacher_query: name of the backbone that computes the query of the teacher's prompts, if the
        distiller maps them; else None. It follows from the teacher's specification, and is not in
        the JSON but in the artifact's metadata under the same name.
    """

    format: int = field(default=FORMAT, kw_only=True)
    numerics: int
    seed: int
    role: str
    backbone: str
    query: str
    teacher: str | None
    method: Method
    distiller: Distiller
    stream: Stream
    images_per_class: ImagesPerClass
    view: InputView
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
    teacher_alignment: Alignment | str | None = None
    student_views: str | None = None
    views: str | None = None
    teacher_method: Method | None = None
    apt_teacher: str | None = None
    sizes: Mapping[str, int] | None = None
    cache_dtype: str | None = None
    precision: str | Mapping[str, str] | None = None
    bf16: int | None = None
    answers: Answers | None = None
    teacher_query: str | None = field(default=None, compare=False, metadata=_OUTSIDE)

    @classmethod
    def from_json(cls, value: Any, where: str = "spec", teacher_query: str | None = None) -> Self:
        """Create it as `Part.from_json`; `teacher_query` is not in the JSON."""
        check_format(value, where)
        return replace(super().from_json(value, where), teacher_query=teacher_query)

    @property
    def reads_past(self) -> bool:
        """Whether the distiller compares the learner with its outputs before the task."""
        return self.distiller.facts.reads_past

    def until(self, task: int) -> "LearnerSpec":
        """Return the specification after a task, counted from 0."""
        stream, images = self.stream.until(task), _images_until(self.images_per_class, task)
        same = stream is self.stream and images is self.images_per_class
        return self if same else replace(self, stream=stream, images_per_class=images)

    def taught_by(self, teacher: "LearnerSpec | None") -> "LearnerSpec":
        """Return the specification with the `teacher_query` that follows from a teacher."""
        maps = teacher is not None and self.distiller.facts.maps_prompts
        return replace(self, teacher_query=teacher.query if teacher and maps else None)

    @property
    def taught(self) -> bool:
        """Whether its distiller uses the teacher; if not, the teacher only labels images."""
        uses = self.distiller.facts.uses_teacher
        return self.teacher is not None and uses(self.distiller.options)

    @property
    def labelling(self) -> Labelling | None:
        """How images without a label get a class.

        None if no head is in closed form, or if it is solved for the targets of the distiller.
        """
        how, options = self.alignment, self.method.options
        if how is not None:
            by = labelled_by(how.labels, self.teacher is not None)
            return Labelling(by, how.label_classes, how.answers)
        if not self.method.facts.labels_images or self.taught:
            return None
        return Labelling(labelled_by(options["labels"], False), options["label_classes"])

    @property
    def labelled_by_teacher(self) -> bool:
        """Whether the teacher gives the classes of images without a label."""
        return self.labelling is not None and self.labelling.by == "teacher"

    @property
    def keys(self) -> tuple[str | int, ...]:
        """Keys of the initial parameters: equal for students of a pair, not teachers."""
        return self.seed, self.role, self.backbone

    def queries(self, backbone: str, views: str = "train") -> "CacheSpec":
        """Return the specification of a backbone's queries of the training images.

        Args:
            backbone: name of the backbone.
            views: `train` or `held_out`, see `CacheSpec`.
        """
        train = views == "train"
        return CacheSpec(
            kind="queries",
            views=views,
            numerics=self.numerics,
            backbone=backbone,
            normalization=self.normalization,
            view=self.view if train else self.view.held_out(),
            images_per_class=self.images_per_class,
            seed=self.seed,
            stream=self.stream,
            student_views=self.student_views if train else None,
            unlabelled=self.unlabelled if train else None,
            training=Passes(self.training.epochs, self.training.batch_size) if train else None,
            cache_dtype=self.cache_dtype if train else None,  # those for alignment are not rounded
            **self._backbone_fields(backbone),
        )

    def test_queries(self, backbone: str, images_per_class: int | None) -> "CacheSpec":
        """Return the specification of a backbone's queries of the test images."""
        return CacheSpec(
            kind="queries",
            views="test",
            numerics=self.numerics,
            backbone=backbone,
            normalization=self.normalization,
            view=self.view.held_out(),
            images_per_class=images_per_class,
            cache_dtype=self.cache_dtype,
            **self._backbone_fields(backbone),
        )

    @property
    def soft_columns(self) -> str:
        """Classes that the soft loss compares: those of the `task`, or all `seen` so far."""
        columns: str = self.distiller.options.get("soft_columns", "task")
        return columns

    def targets(
        self, teacher: "LearnerSpec | Answers", columns: str = "task", views: str = "train"
    ) -> "CacheSpec":
        """Return the specification of a teacher's targets, see `CacheSpec`.

        Those of `Answers` are the same for all views, so they are specified as at test views.
        """
        if isinstance(teacher, Answers):
            return CacheSpec(
                kind="targets",
                views="held_out",
                numerics=self.numerics,
                backbone=teacher.name,
                normalization=self.normalization,
                view=self.view.held_out(),
                images_per_class=self.images_per_class,
                seed=self.seed,
                stream=self.stream,
                columns=columns,
                answers=teacher,
            )
        return replace(
            self.queries(teacher.query, views),
            kind="targets",
            teacher=teacher,
            apt_teacher=self.apt_teacher,
            columns=columns,
        )

    def _backbone_fields(self, backbone: str) -> dict[str, Any]:
        """Return the fields of one backbone: precision and side of its input."""
        precision, size = precision_of(self, backbone), (self.sizes or {}).get(backbone)
        own: dict[str, Any] = {} if precision == "fp32" else {"precision": precision, "bf16": BF16}
        return own | ({} if size is None else {"sizes": {backbone: size}})


@dataclass(frozen=True, kw_only=True)
class CacheSpec(Part):
    """Specification of a frozen model's outputs for the images of a task, or of the test split.

    kind: `queries`: the class token of a backbone without prompts; `targets`: logits of a teacher.
    views: `train`: all views of the training images in training; `held_out`: the training images
        as at prediction, which do not depend on epochs and batches; `test`: the test images.
    backbone: name of the backbone that computes the queries, for targets those of the teacher.
    images_per_class: of the split; None for all; of training images as in `LearnerSpec`.
    seed, stream, student_views, unlabelled, training: as in `LearnerSpec`; None where they do not
        determine the views.
    teacher: the teacher of targets; None for queries, and for answers.
    answers: as in `LearnerSpec`.
    apt_teacher: as in `LearnerSpec`.
    columns: of targets: logits of the classes of the `task`, or of all `seen` so far.
    """

    kind: str
    views: str
    numerics: int
    backbone: str
    normalization: str
    view: InputView
    images_per_class: ImagesPerClass
    seed: int | None = None
    stream: Stream | None = None
    student_views: str | None = None
    unlabelled: Unlabelled | None = None
    training: Passes | None = None
    cache_dtype: str | None = None
    precision: str | None = None
    bf16: int | None = None
    sizes: Mapping[str, int] | None = None
    teacher: LearnerSpec | None = None
    apt_teacher: str | None = None
    columns: str | None = None
    answers: Answers | None = None

    @property
    def queries(self) -> "CacheSpec":
        """Specification of the queries of a teacher's prompts at the views of its targets."""
        return replace(self, kind="queries", teacher=None, apt_teacher=None, columns=None)


AnySpec = LearnerSpec | CacheSpec


def images_of(spec: AnySpec, task: int) -> int | None:
    """Return the number of training images per class of a task; None for all."""
    images = spec.images_per_class
    return images[task] if isinstance(images, tuple) else images


def _images_until(images: ImagesPerClass, task: int) -> ImagesPerClass:
    """Return the numbers of images up to a task; a single one if these are equal."""
    if not isinstance(images, tuple):
        return images
    kept = images[: task + 1]
    return kept[0] if len({*kept}) == 1 else images if kept == images else kept


def check_format(value: Any, where: str = "spec") -> None:
    """Raise `CdlError` if a specification has the form of another version of cdl."""
    if isinstance(value, dict) and value.get("format") != FORMAT:
        raise CdlError(
            f"{where}.format: invalid value {value.get('format')!r}; expected {FORMAT}: another "
            "version of cdl computed these results; run the configuration again"
        )


def precision_of(spec: AnySpec, backbone: str) -> str:
    """Return the precision of a backbone's frozen weights, `fp32` or `bf16`."""
    given = spec.precision or "fp32"
    return given if isinstance(given, str) else given[backbone]
