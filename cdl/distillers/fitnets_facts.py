"""Options, check, planning facts and look of FitNets."""

from cdl.distillers import Distillation, DistillerFacts
from cdl.distillers.kd_facts import SOFT
from cdl.runtime.facts import Look, refuse
from cdl.runtime.options import number


def check_tokens(run: Distillation) -> None:
    """Raise `Unsuitable` if the tokens of two backbones do not correspond."""
    teacher, student = run.teacher_shape.grid, run.student_shape.grid
    what, remedy = "equally many patches", "; set size"
    if run.student_shape.tokenizer:
        what, remedy = "one tokenizer", ", or a distiller that compares outputs"
    expected = f"{what}, not {teacher} and {student}, for a comparison token by token{remedy}"
    refuse(teacher != student, "", run.pair, expected)
    differ = run.student_shape.class_token != run.teacher_shape.class_token
    expected = "two backbones with a class token, or two without, for a comparison token by token"
    refuse(differ, "", run.pair, expected)


FITNETS = DistillerFacts(
    "cdl.distillers.fitnets:FitNets",
    description="FitNets (Romero et al., ICLR 2015) with kd.",
    compares="last",
    options={**SOFT, "feature_weight": number(0.1, "Weight of the feature loss.", minimum=0)},
    check=check_tokens,
    look=Look("#332288", "<", ":"),
)
