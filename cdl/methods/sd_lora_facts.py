"""Options, check and planning facts of SD-LoRA."""

from cdl.methods import PromptFacts, check_entrance
from cdl.runtime.options import flag, integers

SD_LORA = PromptFacts(
    "cdl.methods.sd_lora:SDLoRA",
    description="SD-LoRA (Wu et al., ICLR 2025): a branch per task on queries and values; earlier "
    "ones keep their direction and learn their magnitude.",
    needs_query=False,
    gives_prefixes=False,
    options={
        "ranks": integers(
            [10], "Rank of each task's branch; later tasks use the last one.", minItems=1
        ),
        "as_released": flag(
            False,
            "Magnitudes start anew in every task and directions are normalised factor by factor, "
            "so that the features jump between tasks.",
        ),
    },
    check=check_entrance("qkv"),
)
