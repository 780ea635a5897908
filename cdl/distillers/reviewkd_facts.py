"""ReviewKD: what planning and figures know of it."""

from cdl.distillers import Distillation, DistillerFacts
from cdl.distillers.fitnets_facts import check_tokens
from cdl.distillers.kd_facts import SOFT
from cdl.runtime.facts import Look, refuse
from cdl.runtime.options import number


def check(run: Distillation) -> None:
    """Refuse other tokens than the teacher's, and a teacher of fewer blocks."""
    check_tokens(run)
    own, theirs = run.student_shape.depth, run.teacher_shape.depth
    expected = f"a teacher with at least {own} blocks, not {theirs}"
    refuse(theirs < own, "", run.pair, expected)


REVIEWKD = DistillerFacts(
    "cdl.distillers.reviewkd:ReviewKD",
    description="ReviewKD (after Chen et al., CVPR 2021) with kd.",
    compares="all",
    options={**SOFT, "feature_weight": number(0.2, "Weight of the feature loss.", minimum=0)},
    check=check,
    look=Look("#882255", ">", "--"),
)
