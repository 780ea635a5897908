"""Options, check, planning facts and look of SE2D."""

from cdl.distillers import Distillation, DistillerFacts, weighs_teacher
from cdl.distillers.kd_facts import SOFT
from cdl.runtime.facts import Look, refuse
from cdl.runtime.options import flag, number


def check(run: Distillation) -> None:
    """Raise `Unsuitable` if there is no image without a label."""
    none = not (run.unlabelled or run.options["self_distillation"])
    expected = "true, or a dataset with labels or unlabelled: the past is compared on images "
    refuse(none, "self_distillation", False, f"{expected}without a label")


SE2D = DistillerFacts(
    "cdl.distillers.se2d:SE2D",
    description="SE2D (Michel et al., CVPR 2026): softened logits, and the student's own past on "
    "unlabelled images.",
    options={
        **SOFT,
        "alpha": number(
            1.0,
            "Weight of the soft loss; cross-entropy has the weight 1 - alpha. 0: no teacher.",
            minimum=0,
            maximum=1,
        ),
        "temperature": number(10.0, "Temperature of teacher and past.", exclusiveMinimum=0),
        "past_weight": number(1.0, "Weight of the loss with the past.", minimum=0),
        "self_distillation": flag(False, "Compare the past on all images."),
    },
    uses_teacher=weighs_teacher,
    reads_past=True,
    check=check,
    look=Look("#44546A", "v", "-."),
)
