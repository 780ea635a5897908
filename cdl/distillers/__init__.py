"""Distillers, found in this table. Those of other packages stand behind it.

A distiller is two files: `NAME.py` with its loss and module, and `NAME_facts.py` with all that
planning, tables and figures know of it. No torch is imported here or there.
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
    """A run with a teacher, as the `check` of a distiller sees it.

    options: of the distiller, all of them.
    method: name of the student's method.
    tasks: of the dataset, as in the configuration.
    n_tasks: how many they are.
    smallest_task: classes of the smallest task; infinity where only the files say.
    student: name of the student's backbone.
    student_shape: its shape; `size` always is the side of its input in pixels.
    teacher: name of the teacher's backbone.
    teacher_shape: its shape, the same.
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

    @property
    def pair(self) -> str:
        """Both backbones in words."""
        return f"{self.teacher} to {self.student}"


def _accept(run: Distillation) -> None:
    """Accept every run."""


@dataclass(frozen=True, kw_only=True)
class DistillerFacts(Facts):
    """What planning, tables and figures know of a distiller, besides what all `Facts` hold.

    compares: which of both models' last block outputs it compares; `none` reads logits alone.
    counts_tasks: as in `cdl.methods.PromptFacts`.
    maps_prompts: whether it reads the teacher's prompts, also at prediction.
    suits_solve: whether its soft labels are logits that a method without gradient steps can take.
    check: calls `cdl.runtime.facts.refuse` on a run that cannot work.
    look: colour, marker and dash in figures; None: one of a few for all that have none.
    """

    compares: Literal["none", "last", "all"] = "none"
    maps_prompts: bool = False
    counts_tasks: bool = False
    suits_solve: bool = False
    check: Callable[[Distillation], None] = _accept
    look: Look | None = None

    def blocks(self, depth: int) -> int:
        """Return how many last blocks of both models it compares, for a student of `depth`."""
        return {"none": 0, "last": 1, "all": depth}[self.compares]

    def load(self) -> "type[Distiller]":
        """Import and return the class."""
        kind: type[Distiller] = load(self.path)
        return kind


DISTILLERS = Registry(
    DistillerFacts,
    {
        "none": "cdl.distillers.none_facts:NONE",
        "kd": "cdl.distillers.kd_facts:KD",
        "dkd": "cdl.distillers.dkd_facts:DKD",
        "dist": "cdl.distillers.dist_facts:DIST",
        "fitnets": "cdl.distillers.fitnets_facts:FITNETS",
        "cls_feature": "cdl.distillers.cls_feature_facts:CLS_FEATURE",
        "reviewkd": "cdl.distillers.reviewkd_facts:REVIEWKD",
        "kd_token": "cdl.distillers.kd_token_facts:KD_TOKEN",
        "kd_prompt": "cdl.distillers.kd_prompt_facts:KD_PROMPT",
        "cdl_prompt": "cdl.distillers.cdl_prompt_facts:CDL_PROMPT",
    },
    "cdl.distillers",
)
