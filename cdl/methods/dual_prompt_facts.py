"""Options, check and planning facts of DualPrompt."""

from cdl.methods import PromptFacts, Prompting
from cdl.methods.one_prompt_facts import check_two_lists
from cdl.runtime.facts import refuse
from cdl.runtime.options import blocks, integer, tokens


def check(run: Prompting) -> None:
    """Raise `Unsuitable` if a block has both prompts or the pool is unsuitable."""
    check_two_lists(run)
    pool, top_k = run.options.get("pool"), run.options["top_k"]
    open_ended = pool is None and run.options["dual_candidates"] == "all"
    expected = "a number: dual_candidates: all selects among the prompts of all tasks"
    refuse(open_ended, "pool", pool, expected)
    small = pool is not None and pool < run.n_tasks
    refuse(small, "pool", pool, f"one prompt per task, {run.n_tasks}")
    most = pool or run.n_tasks
    refuse(top_k > most, "top_k", top_k, f"at most the pool, {most}")


DUAL_PROMPT = PromptFacts(
    "cdl.methods.dual_prompt:DualPrompt",
    description="DualPrompt (Wang et al., ECCV 2022).",
    chooses=True,
    options={
        "pool": integer(
            None,
            "E-prompts per block, drawn at the start, at least one per task; null: one is drawn at "
            "the start of each task.",
            minimum=1,
        ),
        "length": tokens(20, "Tokens of an E-prompt"),
        "g_length": tokens(6, "Tokens of a G-prompt"),
        "top_k": integer(1, "E-prompts selected at test.", minimum=1),
        "g_layers": blocks([0, 1], "Blocks with a G-prompt."),
        "e_layers": blocks([2, 3, 4], "Blocks with E-prompts.", minItems=1),
    },
    protocol=("prompt_loss_reduction", "dual_candidates"),
    check=check,
)
