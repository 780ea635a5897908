"""Options, check, planning facts and look of Tf-KD with a virtual teacher."""

from cdl.distillers import Distillation, DistillerFacts
from cdl.distillers.dkd_facts import check as check_two_classes
from cdl.distillers.kd_facts import SOFT
from cdl.distillers.none_facts import LABELS
from cdl.runtime.facts import Look, refuse
from cdl.runtime.options import number


def check(run: Distillation) -> None:
    """Raise `Unsuitable` if the virtual teacher does not prefer the label in every task."""
    check_two_classes(run)
    correct, chance = run.options["correct"], 1 / run.smallest_task
    expected = f"above {chance:.3g}, the share of each class in the smallest task"
    refuse(correct <= chance, "correct", correct, expected)


TF_KD = DistillerFacts(
    "cdl.distillers.tf_kd:TfKD",
    description="Softened labels without a teacher (Tf-KD, Yuan et al., CVPR 2020): the control.",
    options={
        **LABELS,
        "alpha": SOFT["alpha"],
        "temperature": SOFT["temperature"],
        "correct": number(
            0.9,
            "Probability that the virtual teacher gives to the label; the other classes of the "
            "task share the rest equally.",
            exclusiveMinimum=0,
            exclusiveMaximum=1,
        ),
    },
    uses_teacher=lambda options: False,
    check=check,
    look=Look("#6B6B00", "*", "--"),
)
