"""Options, check, planning facts and look of class token regression."""

from cdl.distillers import Distillation, DistillerFacts
from cdl.distillers.kd_facts import SOFT
from cdl.runtime.facts import Look, refuse
from cdl.runtime.options import number


def check(run: Distillation) -> None:
    """Raise `Unsuitable` if a backbone has no class token."""
    both = run.student_shape.class_token and run.teacher_shape.class_token
    refuse(not both, "", run.pair, "two backbones with a class token, which it compares")


CLS_FEATURE = DistillerFacts(
    "cdl.distillers.cls_feature:ClsFeature",
    description="Regression of the teacher's last class token, with kd.",
    compares="last",
    options={**SOFT, "feature_weight": number(1.0, "Weight of the feature loss.", minimum=0)},
    check=check,
    look=Look("#2A8FBD", "h", "-."),
)
