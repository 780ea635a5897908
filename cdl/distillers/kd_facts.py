"""Options, planning facts and look of distillation by softened logits."""

from cdl.distillers import Distillation, DistillerFacts
from cdl.distillers.none_facts import LABELS
from cdl.runtime.facts import Look, refuse
from cdl.runtime.options import choice, flag, number

SOFT = {  # options shared by all distillers with a soft loss
    **LABELS,
    "alpha": number(
        0.5,
        "Weight of the soft loss; cross-entropy has the weight 1 - alpha.",
        minimum=0,
        maximum=1,
    ),
    "temperature": number(2.0, "Temperature of the soft loss.", exclusiveMinimum=0),
    "standardize": flag(
        False,
        "Compare z-scores of both models' logits (Sun et al., CVPR 2024).",
    ),
    "soft_weight": number(
        None,
        "Weight of the soft loss; null: alpha, so that the weights sum to one.",
        minimum=0,
    ),
    "confidence": number(
        None,
        "The soft loss includes only images with a teacher probability above this value; null: "
        "all images.",
        minimum=0,
        exclusiveMaximum=1,
    ),
}
COLUMNS = {  # options of a soft loss that may include earlier classes
    **SOFT,
    "soft_columns": choice(
        "task",
        ["task", "seen"],
        "Classes that the soft loss compares: those of the current task, as in the released code, "
        "or all seen so far, with the logits of the teacher's heads after their alignment.",
    ),
}


def check(run: Distillation) -> None:
    """Raise `Unsuitable` if z-scores are requested of logits that are not compared."""
    hard = run.options.get("targets") == "hard"
    expected = "false with targets: hard, which does not compare logits"
    refuse(hard and run.options.get("standardize"), "standardize", True, expected)


KD = DistillerFacts(
    "cdl.distillers.kd:SoftOrHardKD",
    description="Softened logits (Hinton et al., 2015), or the teacher's most likely class.",
    options={
        **COLUMNS,
        "targets": choice(
            "soft",
            ["soft", "hard"],
            "soft: the teacher's softened logits; hard: cross-entropy with its most likely class.",
        ),
    },
    check=check,
    suits_solve=True,
    look=Look("#0072B2", "D"),
)
