"""Options and planning facts of APT."""

from cdl.methods import PromptFacts
from cdl.runtime.options import number

APT = PromptFacts(
    "cdl.methods.apt:APT",
    description="APT (Chen et al., ICCV 2025).",
    needs_query=False,
    gives_prefixes=False,
    adds_to_class_token=True,
    merges=True,
    options={
        "ema": number(0.7, "Weight of the old merged prompt in a merge.", minimum=0, maximum=1),
    },
)
