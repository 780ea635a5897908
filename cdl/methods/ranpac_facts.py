"""RanPAC: what planning knows of it."""

from cdl.methods import PromptFacts, Prompting
from cdl.runtime.facts import refuse
from cdl.runtime.options import choice, integer


def check(run: Prompting) -> None:
    """Refuse a Gram matrix, in float64, that is too large to solve with."""
    width = run.options["projection"] or run.shape.width
    needed = 24 * width**2  # the matrix, and what solving it copies
    expected = (
        f"a smaller number: its solve would take about {needed / 1e9:,.0f} GB of memory, and at "
        f"most {run.memory / 1e9:,.0f} are planned for"
    )
    refuse(needed > run.memory, "projection", width, expected)


RANPAC = PromptFacts(
    "cdl.methods.ranpac:RanPAC",
    description="RanPAC (McDonnell et al., NeurIPS 2023): a ridge on frozen random features, no "
    "gradient step; a bound.",
    needs_query=False,
    gives_prefixes=False,
    trains=False,
    options={
        "projection": integer(
            10000,
            "Random features; an artifact holds the square of this many numbers; null: the class "
            "token itself.",
            nullable=True,
            minimum=1,
        ),
        "prototypes": choice(
            "ridge",
            ["ridge", "mean"],
            "Weights: solved by ridge regression, or class means compared by cosine.",
        ),
    },
    check=check,
    numerics=3,  # 1: ridges judged by the larger of two equal systems; 2: of any size
)
