"""A run, one learner over all tasks, and the configuration blocks that it is named after."""

from dataclasses import dataclass, field
from typing import Any

from cdl.distillers import DISTILLERS, DistillerFacts
from cdl.methods import PROMPTS, PromptFacts


@dataclass(frozen=True)
class Block:
    """A configuration block that the grid names, possibly with overrides under a variant."""

    name: str
    variant: str = ""
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    joint: bool = False  # all tasks at once
    alignment: dict[str, Any] | None = field(default=None, hash=False)  # of heads after a task
    training: dict[str, Any] = field(default_factory=dict, hash=False)  # that it does otherwise
    methods: dict[str, Any] = field(default_factory=dict, hash=False)  # options of its students

    @property
    def label(self) -> str:
        """The folder name: `kd`, or `kd+tau4` for a variant."""
        return f"{self.name}+{self.variant}" if self.variant else self.name


@dataclass(frozen=True)
class Run:
    """One learner over all tasks: a teacher, the undistilled student, or a distilled student."""

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
    teacher_method: Block | None = None  # None: its own

    @property
    def learner(self) -> str:
        """The folder name of the learner."""
        if self.teacher is None:
            variant = f"+{self.distiller.variant}" if self.distiller.variant else ""
            return f"{self.role}{variant}-{self.backbone}-q-{self.query}"
        other = f"+{self.teacher_method.label}" if self.teacher_method else ""
        return f"{self.distiller.label}-{self.backbone}-from-{self.teacher}{other}-q-{self.query}"

    @property
    def folder(self) -> str:
        """Path below the configuration's folder of runs."""
        return f"{self.dataset}/{self.method.label}/{self.learner}/seed{self.seed}"

    @property
    def backbones(self) -> list[str]:
        """Names of all backbones that its numbers depend on."""
        names = {self.backbone, self.query, self.teacher, self.teacher_query}
        return sorted(name for name in names if name)

    def role_of(self, backbone: str) -> str:
        """Return the role of one of its backbones: a teacher may read its student's queries."""
        teachers = {self.teacher, self.backbone if self.role == "teacher" else None}
        return "teacher" if backbone in teachers else "student"

    @property
    def rule(self) -> str:
        """The rule that learns its tasks."""
        return "distil" if self.teacher else "train"

    @property
    def prompts(self) -> PromptFacts:
        """What its method says of itself."""
        return PROMPTS[self.method.name]

    @property
    def distils(self) -> DistillerFacts:
        """What its distiller says of itself."""
        return DISTILLERS[self.distiller.name]

    @property
    def reads_blocks(self) -> bool:
        """Whether its distiller runs the teacher's ViT, for more than logits."""
        return self.distils.compares != "none"

    @property
    def mapped_query(self) -> str | None:
        """Whose query the teacher's prompts read at prediction, where a distiller maps them."""
        return self.teacher_query if self.distils.maps_prompts else None
