"""Options, check and planning facts of LoRA."""

from cdl.methods import PromptFacts, check_entrance
from cdl.runtime.options import choice, integer

LORA = PromptFacts(
    "cdl.methods.lora:LoRA",
    description="LoRA (Hu et al., ICLR 2022), one set of branches for all tasks.",
    needs_query=False,
    gives_prefixes=False,
    options={
        "rank": integer(10, "Rank of a branch.", minimum=1),
        "parts": choice("qv", ["qv", "kv", "qkv"], "Projections with a branch."),
    },
    check=check_entrance("qkv"),
)
