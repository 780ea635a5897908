"""Options, check and planning facts of EASE."""

from cdl.methods import PromptFacts, check_entrance
from cdl.methods.adapter_facts import ADAPTERS
from cdl.methods.simple_cil_facts import LOGIT_SCALE
from cdl.runtime.options import number

EASE = PromptFacts(
    "cdl.methods.ease:EASE",
    description="EASE (Zhou et al., CVPR 2024): adapters per task, completed class means; a pass "
    "per task.",
    needs_query=False,
    gives_prefixes=False,
    trains=False,
    options={
        **ADAPTERS,
        "alpha": number(0.1, "Weight of the adapters of other tasks.", minimum=0),
        "logit_scale": LOGIT_SCALE,
    },
    check=check_entrance("mlp"),
)
