"""Options, check and planning facts of SSIAT."""

from cdl.methods import PromptFacts, check_entrance
from cdl.methods.adapter_facts import ADAPTERS
from cdl.methods.simple_cil_facts import LOGIT_SCALE
from cdl.runtime.options import number

SSIAT = PromptFacts(
    "cdl.methods.ssiat:SSIAT",
    description="SSIAT (Tan et al., CVPR 2024): one set of adapters for all tasks, a cosine head.",
    needs_query=False,
    gives_prefixes=False,
    options={
        **ADAPTERS,
        "logit_scale": LOGIT_SCALE,
        "margin": number(
            0.0, "Cosine that is subtracted from that of the label; ImageNet-A: 0.3.", minimum=0
        ),
    },
    check=check_entrance("mlp"),
)
