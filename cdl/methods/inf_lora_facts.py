"""Options, check and planning facts of InfLoRA."""

from cdl.methods import PromptFacts, Prompting, check_entrance
from cdl.runtime.facts import refuse
from cdl.runtime.options import flag, integer, number


def check(run: Prompting) -> None:
    """Raise `Unsuitable` if the backbone lacks the entrance or the shares do not rise."""
    check_entrance("qkv")(run)
    first, last = run.options["first_share"], run.options["last_share"]
    refuse(last < first, "last_share", last, f"at least first_share, {first}")


INF_LORA = PromptFacts(
    "cdl.methods.inf_lora:InfLoRA",
    description="InfLoRA (Liang and Li, CVPR 2024): a branch per task on keys and values, in "
    "directions that earlier tasks do not use.",
    needs_query=False,
    gives_prefixes=False,
    options={
        "rank": integer(10, "Rank of a task's branch.", minimum=1),
        "first_share": number(
            0.95, "Share of the energy that the memory spans after task 0.", minimum=0, maximum=1
        ),
        "last_share": number(
            1.0, "Share after `sessions` tasks, never reached.", minimum=0, maximum=1
        ),
        "sessions": integer(10, "Tasks over which the share rises.", minimum=1),
        "as_released": flag(
            False,
            "Energies as in the released code: fourth powers of the data's singular values, which "
            "make the memory smaller.",
        ),
    },
    check=check,
)
