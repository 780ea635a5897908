"""FitNets: what planning and figures know of it."""

from cdl.backbones.shape import BackboneShape
from cdl.distillers import Distillation, DistillerFacts
from cdl.distillers.kd_facts import SOFT
from cdl.runtime.facts import Look, refuse
from cdl.runtime.options import number


def check_tokens(run: Distillation) -> None:
    """Refuse two backbones whose tokens cannot be compared one by one."""
    theirs, own = (_grid(shape) for shape in (run.teacher_shape, run.student_shape))
    expected = (
        f"equally many patches, not {theirs} x {theirs} and {own} x {own}: it compares token by "
        "token; set size"
    )
    refuse(theirs != own, "", run.pair, expected)
    differ = run.student_shape.class_token != run.teacher_shape.class_token
    expected = "two backbones with a class token, or two without: it compares token by token"
    refuse(differ, "", run.pair, expected)


def _grid(shape: BackboneShape) -> int:
    """Return the patches along a side of a backbone's input."""
    return (shape.size or 0) // (shape.patch or 1)


FITNETS = DistillerFacts(
    "cdl.distillers.fitnets:FitNets",
    description="FitNets (Romero et al., ICLR 2015) with kd.",
    compares="last",
    options={**SOFT, "feature_weight": number(0.1, "Weight of the feature loss.", minimum=0)},
    check=check_tokens,
    look=Look("#332288", "<", ":"),
)
