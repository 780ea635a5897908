"""Planning facts and look of training without a teacher."""

from cdl.distillers import DistillerFacts
from cdl.runtime.facts import Look

NONE = DistillerFacts(
    "cdl.distillers.none:NoDistillation",
    description="No teacher.",
    uses_teacher=lambda options: False,
    look=Look("#5E6670", "o"),
)
