"""Options, check and planning facts of CODA-Prompt."""

from collections.abc import Mapping
from typing import Any

from cdl.methods import PromptFacts, Prompting, check_layers
from cdl.runtime.facts import refuse
from cdl.runtime.options import blocks, integer, number, tokens


def check_pool(options: Mapping[str, Any], query: int, width: int, n_tasks: int) -> None:
    """Raise `Unsuitable` if a pool of orthogonal components is too small or too large.

    Args:
        options: `length`, and one of `pool` and `pool_per_task`.
        query: width of the query.
        width: width of a token.
        n_tasks: number of tasks of the stream.
    """
    given = {key: options[key] for key in ("pool", "pool_per_task") if options.get(key) is not None}
    refuse(len(given) != 1, "", given, "one of pool and pool_per_task; the other is null")
    flat, ((key, value),) = options["length"] * width, given.items()
    least, most = (n_tasks, min(query, flat)) if key == "pool" else (1, min(query, flat) // n_tasks)
    expected = (
        f"{least} to {most}: at least one per task, and for all {n_tasks} tasks at most "
        f"{min(query, flat)}, the minimum of the query's width {query} and length x width {flat}"
    )
    refuse(not least <= value <= most, key, value, expected)


def check(run: Prompting) -> None:
    """Raise `Unsuitable` if a block does not exist or the pool has an invalid size."""
    check_layers(run)
    check_pool(run.options, run.query_shape.width, run.shape.width, run.n_tasks)


CODA_PROMPT = PromptFacts(
    "cdl.methods.coda_prompt:CodaPrompt",
    description="CODA-Prompt (Smith et al., CVPR 2023).",
    counts_tasks=True,
    chooses=True,
    options={
        "pool": integer(
            None,
            "Components of all tasks together, as released; adding a task then changes the "
            "results of all tasks. Alternative:",
            minimum=1,
        ),
        "pool_per_task": integer(
            None,
            "Components of each task; tasks can be added later. The preset clean has 10, the "
            "preset released a pool of 100.",
            minimum=1,
        ),
        "length": tokens(8, "Tokens of a component"),
        "ortho_weight": number(0.0, "Weight of the orthogonality penalty.", minimum=0),
        "layers": blocks([0, 1, 2, 3, 4], "Prompted blocks.", minItems=1),
    },
    alternatives=("pool", "pool_per_task"),
    protocol=("coda_growth",),
    check=check,
)
