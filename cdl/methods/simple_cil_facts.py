"""Options and planning facts of SimpleCIL."""

from cdl.methods import PromptFacts
from cdl.methods.labelling_facts import LABELLING
from cdl.runtime.options import number

LOGIT_SCALE = number(
    20.0,
    "Factor of the cosines, so that softened outputs of a teacher are not flat; predicted classes "
    "do not depend on it.",
    exclusiveMinimum=0,
)
SIMPLE_CIL = PromptFacts(
    "cdl.methods.simple_cil:SimpleCIL",
    description="SimpleCIL (Zhou et al., IJCV 2024): nearest class mean of the frozen features.",
    needs_query=False,
    gives_prefixes=False,
    trains=False,
    options={"logit_scale": LOGIT_SCALE, **LABELLING},
)
