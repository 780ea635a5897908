"""Options, check and planning facts of RanPAC."""

from collections.abc import Mapping
from typing import Any

from cdl.methods import PromptFacts, Prompting
from cdl.methods.first_session_facts import ENTERS, SESSION, check_module
from cdl.methods.labelling_facts import LABELLING
from cdl.runtime.facts import refuse
from cdl.runtime.options import choice, flag, integer, number

SCALE = 1.0  # of logits that estimate zeros and ones


def unscaled(options: Mapping[str, Any]) -> bool:
    """Return whether the logits are those of a ridge without a factor."""
    return bool(options["prototypes"] == "ridge" and options.get("logit_scale", SCALE) == SCALE)


def check(run: Prompting) -> None:
    """Raise `Unsuitable` if the solve exceeds the memory limit or a module cannot enter."""
    check_module(run, "first_session")
    means = run.options.get("as_released") and run.options["prototypes"] == "mean"
    refuse(means, "as_released", True, "false: with prototypes: mean the logits are cosines anyway")
    width = run.options["projection"] or run.shape.width
    needed = 24 * width**2  # bytes of the matrix and of the copies made by the solver
    expected = (
        f"a smaller number: the solve needs about {needed / 1e9:,.0f} GB of memory; the limit is "
        f"{run.memory / 1e9:,.0f} GB"
    )
    refuse(needed > run.memory, "projection", width, expected)


RANPAC = PromptFacts(
    "cdl.methods.ranpac:RanPAC",
    description="RanPAC (McDonnell et al., NeurIPS 2023): ridge regression on frozen random "
    "features; without a first session no gradient steps.",
    needs_query=False,
    gives_prefixes=False,
    trains=False,
    session="first_session",
    unscaled=unscaled,
    options={
        "projection": integer(
            10000,
            "Number of random features; an artifact stores the square of this number of values; "
            "null: the class token itself.",
            nullable=True,
            minimum=1,
        ),
        "prototypes": choice(
            "ridge",
            ["ridge", "mean"],
            "Weights of the head: ridge regression, or class means with cosine similarity.",
        ),
        "first_session": choice(
            None,
            list(ENTERS),
            "Module that task 0 tunes before the solve; null: none.",
        ),
        **SESSION,
        "logit_scale": number(
            SCALE,
            "Factor of the logits, which estimate ones and zeros; 10 for a teacher whose outputs "
            "are softened.",
            exclusiveMinimum=0,
        ),
        "ridge_images": choice(
            "last",
            ["last", "all"],
            "Validation images that choose the ridge: those of the last task, as published, or of "
            "all tasks so far, whose errors are added up.",
        ),
        "as_released": flag(
            False,
            "Cosines with the ridge's weights instead of products, as in PILOT's port.",
        ),
        **LABELLING,
    },
    check=check,
    numerics=3,  # 1: the larger of two equivalent systems; 2: no lower bound of the ridge
)
