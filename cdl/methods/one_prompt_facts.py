"""Options, check and planning facts of OnePrompt."""

from cdl.methods import PromptFacts, Prompting, check_layers
from cdl.runtime.facts import refuse
from cdl.runtime.options import blocks, tokens


def check_two_lists(run: Prompting) -> None:
    """Raise `Unsuitable` if a block does not exist or is in both lists of layers."""
    check_layers(run, "g_layers")
    check_layers(run, "e_layers")
    shared = sorted(set(run.options["g_layers"]) & set(run.options["e_layers"]))
    refuse(shared, "e_layers", shared, "blocks that are not in g_layers")


ONE_PROMPT = PromptFacts(
    "cdl.methods.one_prompt:OnePrompt",
    description="OnePrompt (Huang et al., ICLR 2024), one prompt per block for all tasks.",
    needs_query=False,
    options={
        "length": tokens(40, "Tokens of a prompt in the later blocks"),
        "g_length": tokens(10, "Tokens of a prompt in the first blocks"),
        "g_layers": blocks([0, 1], "First blocks."),
        "e_layers": blocks([2, 3, 4], "Later blocks.", minItems=1),
    },
    check=check_two_lists,
)
