"""Planning facts and look of training without a teacher."""

from cdl.distillers import DistillerFacts
from cdl.runtime.facts import Look
from cdl.runtime.options import choice

LABELS = {  # options shared by all built-in distillers
    "label_columns": choice(
        "task",
        ["task", "seen"],
        "Classes that the cross-entropy with the label compares: those of the current task, as in "
        "the papers, or all seen so far.",
    ),
}

NONE = DistillerFacts(
    "cdl.distillers.none:NoDistillation",
    description="No teacher.",
    options=LABELS,
    uses_teacher=lambda options: False,
    look=Look("#5E6670", "o"),
)
