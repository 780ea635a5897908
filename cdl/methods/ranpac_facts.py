"""Options, check and planning facts of RanPAC."""

from cdl.methods import PromptFacts, Prompting
from cdl.runtime.facts import refuse
from cdl.runtime.options import choice, integer


def check(run: Prompting) -> None:
    """Raise `Unsuitable` if the float64 solve exceeds the memory limit."""
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
    "features, without gradient steps; a reference.",
    needs_query=False,
    gives_prefixes=False,
    trains=False,
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
    },
    check=check,
    numerics=3,  # 1: the larger of two equivalent systems; 2: no lower bound of the ridge
)
