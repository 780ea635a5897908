"""Options, check and planning facts of the shared adapter."""

from cdl.methods import PromptFacts, check_entrance
from cdl.runtime.options import integer, number

ADAPTERS = {  # options of the methods with adapters
    "bottleneck": integer(64, "Hidden units of an adapter.", minimum=1),
    "scale": number(0.1, "Factor of an adapter's output."),
    "dropout": number(
        0.1, "Share of hidden units set to 0 in training.", minimum=0, exclusiveMaximum=1
    ),
}
ADAPTER = PromptFacts(
    "cdl.methods.adapter:SharedAdapter",
    description="Adapters beside the MLP (AdaptFormer, Chen et al., NeurIPS 2022), one set for "
    "all tasks.",
    needs_query=False,
    gives_prefixes=False,
    options=ADAPTERS,
    check=check_entrance("mlp"),
)
