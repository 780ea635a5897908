"""Options, check, planning facts and look of ReviewKD."""

from cdl.distillers import Distillation, DistillerFacts
from cdl.distillers.fitnets_facts import check_tokens
from cdl.distillers.kd_facts import SOFT
from cdl.runtime.facts import Look, refuse
from cdl.runtime.options import number


def check(run: Distillation) -> None:
    """Raise `Unsuitable` if tokens do not correspond or the teacher has fewer blocks."""
    check_tokens(run)
    student, teacher = run.student_shape.depth, run.teacher_shape.depth
    expected = f"a teacher with at least {student} blocks, not {teacher}"
    refuse(teacher < student, "", run.pair, expected)


REVIEWKD = DistillerFacts(
    "cdl.distillers.reviewkd:ReviewKD",
    description="ReviewKD (after Chen et al., CVPR 2021) with kd.",
    compares="all",
    options={**SOFT, "feature_weight": number(0.2, "Weight of the feature loss.", minimum=0)},
    check=check,
    look=Look("#882255", ">", "--"),
)
