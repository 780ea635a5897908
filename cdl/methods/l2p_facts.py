"""Options, check and planning facts of L2P."""

from cdl.methods import PromptFacts, Prompting, check_layers
from cdl.runtime.facts import refuse
from cdl.runtime.options import blocks, integer, tokens


def check(run: Prompting) -> None:
    """Raise `Unsuitable` if a block does not exist or `top_k` exceeds the pool."""
    check_layers(run)
    pool, top_k = run.options["pool"], run.options["top_k"]
    refuse(top_k > pool, "top_k", top_k, f"at most the pool, {pool}")


L2P = PromptFacts(
    "cdl.methods.l2p:L2P",
    description="Learning to Prompt (Wang et al., CVPR 2022).",
    chooses=True,
    options={
        "pool": integer(30, "Prompts in the pool.", minimum=1),
        "length": tokens(20, "Tokens of a prompt"),
        "top_k": integer(5, "Prompts selected per sample.", minimum=1),
        "layers": blocks([0], "Prompted blocks; the deep variant is [0, 1, 2, 3, 4].", minItems=1),
    },
    protocol=("prompt_loss_reduction",),
    check=check,
)
