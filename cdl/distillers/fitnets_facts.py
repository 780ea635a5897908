"""Options, check, planning facts and look of FitNets."""

from cdl.backbones.shape import BackboneShape
from cdl.distillers import Distillation, DistillerFacts
from cdl.distillers.kd_facts import SOFT
from cdl.runtime.facts import Look, refuse
from cdl.runtime.options import number


def check_tokens(run: Distillation) -> None:
    """Raise `Unsuitable` if the tokens of two backbones do not correspond."""
    teacher, student = (_patch_grid(shape) for shape in (run.teacher_shape, run.student_shape))
    expected = (
        f"equally many patches, not {teacher} x {teacher} and {student} x {student}, for a "
        "comparison token by token; set size"
    )
    refuse(teacher != student, "", run.pair, expected)
    differ = run.student_shape.class_token != run.teacher_shape.class_token
    expected = "two backbones with a class token, or two without, for a comparison token by token"
    refuse(differ, "", run.pair, expected)


def _patch_grid(shape: BackboneShape) -> int:
    """Return the number of patches along a side of a backbone's input."""
    return (shape.size or 0) // (shape.patch or 1)


FITNETS = DistillerFacts(
    "cdl.distillers.fitnets:FitNets",
    description="FitNets (Romero et al., ICLR 2015) with kd.",
    compares="last",
    options={**SOFT, "feature_weight": number(0.1, "Weight of the feature loss.", minimum=0)},
    check=check_tokens,
    look=Look("#332288", "<", ":"),
)
