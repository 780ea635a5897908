"""Registry of distillers, built in and from the entry points of other packages.

A distiller is a file `NAME.py` with its loss and module, and its options, planning facts, check
and look in figures in `facts.py`. Neither this file nor the facts import torch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from cdl.backbones.shape import BackboneShape
from cdl.runtime.facts import Facts, Look
from cdl.runtime.registry import Registry, load

if TYPE_CHECKING:
    from cdl.distillers.base import Distiller


@dataclass(frozen=True)
class Distillation:
    """Argument of the `check` of a distiller: the settings of one run.

    options: all options of the distiller.
    method: name of the student's method.
    tasks: field `tasks` of the dataset in the configuration.
    n_tasks: number of tasks.
    smallest_task: number of classes of the smallest task; infinity if it depends on the files.
    student: name of the student's backbone.
    student_shape: its shape; `size` is always set to the side of its input in pixels.
    teacher: name of the teacher's backbone; that of the student without a teacher.
    teacher_shape: its shape, with `size` set.
    unlabelled: whether the dataset has images without a label.
    """

    options: Mapping[str, Any]
    method: str
    tasks: Any
    n_tasks: int
    smallest_task: float
    student: str
    student_shape: BackboneShape
    teacher: str
    teacher_shape: BackboneShape
    unlabelled: bool = False

    @property
    def pair(self) -> str:
        """Both backbones, as in `TEACHER to STUDENT`."""
        return f"{self.teacher} to {self.student}"


def _accept(run: Distillation) -> None:
    """Accept every run."""


def _always(options: Mapping[str, Any]) -> bool:
    """Return that a distiller uses a teacher with all options."""
    return True


def weighs_teacher(options: Mapping[str, Any]) -> bool:
    """Return whether the weight of the soft loss is above 0."""
    weight = options.get("soft_weight")
    return bool((options["alpha"] if weight is None else weight) > 0)


def softens(options: Mapping[str, Any]) -> bool:
    """Return whether a distiller with these options and a teacher compares softened logits."""
    soft = {"alpha", "temperature"} <= options.keys() and options.get("targets") != "hard"
    return soft and weighs_teacher(options)


@dataclass(frozen=True, kw_only=True)
class DistillerFacts(Facts):
    """Planning facts of a distiller, in addition to `Facts`.

    compares: which block outputs of both models it compares; `none` uses only logits.
    counts_tasks: as in `cdl.methods.PromptFacts`.
    maps_prompts: whether it uses the teacher's prompts, also for prediction.
    enters: whether a token or prefixes of its own enter the student's blocks.
    uses_teacher: whether it uses a teacher, given its options; a student is otherwise trained
        without one, and the grid plans no teacher for it.
    reads_past: whether it compares the student with its own outputs before the task.
    suits_solve: whether a method without gradient steps can use its soft labels.
    check: validates a run; calls `cdl.runtime.facts.refuse` if a setting is invalid.
    look: colour, marker and dash in figures; None uses a look from a short default list.
    """

    compares: Literal["none", "last", "all"] = "none"
    maps_prompts: bool = False
    enters: bool = False
    counts_tasks: bool = False
    uses_teacher: Callable[[Mapping[str, Any]], bool] = _always
    reads_past: bool = False
    suits_solve: bool = False
    check: Callable[[Distillation], None] = _accept
    look: Look | None = None

    def blocks(self, depth: int) -> int:
        """Return the number of last blocks that it compares, given the student's `depth`."""
        return {"none": 0, "last": 1, "all": depth}[self.compares]

    def load(self) -> "type[Distiller]":
        """Import and return the class."""
        kind: type[Distiller] = load(self.path)
        return kind


DISTILLERS = Registry(
    DistillerFacts,
    {
        "none": "cdl.distillers.facts:NONE",
        "kd": "cdl.distillers.facts:KD",
        "tf_kd": "cdl.distillers.facts:TF_KD",
        "dkd": "cdl.distillers.facts:DKD",
        "dist": "cdl.distillers.facts:DIST",
        "lwf": "cdl.distillers.facts:LWF",
        "se2d": "cdl.distillers.facts:SE2D",
        "fitnets": "cdl.distillers.facts:FITNETS",
        "cls_feature": "cdl.distillers.facts:CLS_FEATURE",
        "reviewkd": "cdl.distillers.facts:REVIEWKD",
        "kd_token": "cdl.distillers.facts:KD_TOKEN",
        "kd_prompt": "cdl.distillers.facts:KD_PROMPT",
        "cdl_prompt": "cdl.distillers.facts:CDL_PROMPT",
    },
    "cdl.distillers",
)
