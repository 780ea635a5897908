"""Options, check, planning facts and look of decoupled knowledge distillation."""

from cdl.distillers import Distillation, DistillerFacts
from cdl.distillers.kd_facts import SOFT
from cdl.runtime.facts import Look, refuse
from cdl.runtime.options import number


def check(run: Distillation) -> None:
    """Raise `Unsuitable` if a task has only one class."""
    alone, value = run.smallest_task < 2, f"tasks {run.tasks}"
    refuse(alone, "", value, "two classes or more in every task")


DKD = DistillerFacts(
    "cdl.distillers.dkd:DKD",
    description="Decoupled knowledge distillation (Zhao et al., CVPR 2022).",
    options={
        **SOFT,
        "temperature": number(4.0, "Temperature of the soft loss.", exclusiveMinimum=0),
        "target_weight": number(1.0, "Weight of the target term.", minimum=0),
        "non_target_weight": number(4.0, "Weight of the non-target term.", minimum=0),
    },
    check=check,
    look=Look("#B8578F", "P", "--"),
)
