"""Options, check, planning facts and look of KD prompts."""

from cdl.distillers import Distillation, DistillerFacts
from cdl.distillers.kd_token_facts import KD_TOKEN
from cdl.runtime.facts import Look, refuse
from cdl.runtime.options import choice, integer, tokens


def check(run: Distillation) -> None:
    """Raise `Unsuitable` if a KD prefix is in a block that the student does not have."""
    layers, depth = run.options["kd_layers"], run.student_shape.depth
    expected = f"at most the {depth} blocks of {run.student!r}"
    refuse((layers or 1) > depth, "kd_layers", layers, expected)


KD_PROMPT = DistillerFacts(
    "cdl.distillers.kd_prompt:KDPrompt",
    description="KD token, KD prefixes and KD head (KDP, D-CDL).",
    options={
        **KD_TOKEN.options,
        "prefix_start": choice(
            "uniform",
            ["uniform", "normal", "zeros"],
            "Initial values of the prefixes: uniform on [0, 1), as released; normal with mean 0 "
            "and standard deviation 0.02; or zeros.",
        ),
        "kd_layers": integer(
            None,
            "Blocks 1 to kd_layers-1 get a KD prefix; null: the student's depth; 1: no prefixes, "
            "as kd_token.",
            minimum=1,
        ),
        "kd_length": tokens(6, "Tokens of a KD prefix"),
    },
    check=check,
    look=Look("#D55E00", "^", "-."),
)
