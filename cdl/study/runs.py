"""A run, that is one learner over all tasks, and the configuration blocks that define it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cdl.distillers import DISTILLERS, DistillerFacts
from cdl.methods import PROMPTS, PromptFacts
from cdl.spec import Alignment, Answers, labelled_by


def entry_of(given: str | Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry of a list of the grid as a mapping with `block` and `variant`."""
    return {"block": given, "variant": ""} if isinstance(given, str) else dict(given)


def as_list(given: str | list[str]) -> list[str]:
    """Return a list as it is, and a text as a list with one entry."""
    return [given] if isinstance(given, str) else given


def label_of(name: str, variant: str) -> str:
    """Return the name of a block in tables and folders: `kd`, or `kd+tau4` for a variant."""
    return f"{name}+{variant}" if variant else name


@dataclass(frozen=True)
class Block:
    """A configuration block in a list of the grid, possibly a variant with overrides."""

    name: str
    variant: str = ""
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    joint: bool = False  # learn all tasks at once
    alignment: Alignment | None = None  # None: heads not aligned
    training: dict[str, Any] = field(default_factory=dict, hash=False)  # overrides of training
    methods: dict[str, Any] = field(default_factory=dict, hash=False)  # overrides of methods
    # a distiller's overrides of the students' alignment; None: heads not aligned
    aligning: dict[str, Any] | None = field(default_factory=dict, hash=False)
    trains_as: str = ""  # label of the block with which it shares its training, see `Grid.trained`

    @property
    def label(self) -> str:
        """The folder name, see `label_of`."""
        return label_of(self.name, self.variant)

    @property
    def starts_aligned(self) -> bool:
        """Whether the next task of a method starts from heads that are aligned."""
        return self.alignment is not None and self.alignment.next_task == "aligned"

    def statistics(self, taught: bool) -> str | None:
        """Return the source of the classes of unlabelled images for a method's head.

        Args:
            taught: whether the learner has a teacher.

        Returns:
            See `labelled_by`; None if no head is in closed form.
        """
        if self.alignment is not None:
            return labelled_by(self.alignment.labels, taught)
        solves = self.name in PROMPTS and PROMPTS[self.name].labels_images
        return labelled_by(self.options["labels"], taught) if solves else None


@dataclass(frozen=True)
class Run:
    """One learner over all tasks: a teacher, or a student with or without a distiller."""

    dataset: str
    method: Block
    role: str  # teacher or student
    backbone: str
    query: str
    teacher: str | None
    teacher_query: str | None
    distiller: Block
    seed: int
    n_tasks: int
    teacher_method: Block | None = None  # None: the student's method
    answers: Answers | None = None  # the teacher, if cdl does not train it

    @property
    def learner(self) -> str:
        """The folder name of the learner."""
        if self.teacher is None:
            block = self.distiller
            alone = replace(block, name=self.role) if block.name == "none" else block
            return f"{alone.label}-{self.backbone}-q-{self.query}"
        other = f"+{self.teacher_method.label}" if self.teacher_method else ""
        return f"{self.distiller.label}-{self.backbone}-from-{self.teacher}{other}-q-{self.query}"

    @property
    def folder(self) -> str:
        """Path of the run below the configuration's folder."""
        return f"{self.dataset}/{self.method.label}/{self.learner}/seed{self.seed}"

    @property
    def backbones(self) -> list[str]:
        """Names of all backbones that affect the run, sorted."""
        trained = None if self.answers else self.teacher
        names = {self.backbone, self.query, trained, self.teacher_query}
        return sorted(name for name in names if name)

    def role_of(self, backbone: str) -> str:
        """Return the role of a backbone of this run: `teacher` or `student`.

        The query of a teacher may come from its student's backbone, which stays `student`.
        """
        teachers = {self.teacher, self.backbone if self.role == "teacher" else None}
        return "teacher" if backbone in teachers else "student"

    @property
    def aligned(self) -> bool:
        """Whether its heads are aligned after each task."""
        return self.method.alignment is not None

    @property
    def statistics(self) -> str | None:
        """Source of the classes of unlabelled images; None if no head is in closed form."""
        return self.method.statistics(taught=self.teacher is not None)

    @property
    def rule(self) -> str:
        """Name of the workflow rule that learns a task."""
        return "distil" if self.teacher else "train"

    @property
    def prompts(self) -> PromptFacts:
        """Planning facts of its method."""
        return PROMPTS[self.method.name]

    @property
    def distils(self) -> DistillerFacts:
        """Planning facts of its distiller."""
        return DISTILLERS[self.distiller.name]

    @property
    def reads_blocks(self) -> bool:
        """Whether its distiller needs features of the teacher's ViT in addition to logits."""
        return self.distils.compares != "none"

    @property
    def mapped_query(self) -> str | None:
        """Backbone of the teacher's query at prediction; None if prompts are not mapped."""
        return self.teacher_query if self.distils.maps_prompts else None
