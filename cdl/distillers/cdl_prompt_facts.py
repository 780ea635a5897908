"""Options, check, planning facts and look of the mapping of the teacher's prompts."""

from cdl.distillers import Distillation, DistillerFacts
from cdl.distillers.kd_facts import COLUMNS
from cdl.methods.coda_prompt_facts import check_pool
from cdl.runtime.facts import Look
from cdl.runtime.options import choice, integer, tokens


def check(run: Distillation) -> None:
    """Raise `Unsuitable` if the attention mapping's pool is too small or too large."""
    if run.options["mapping"] == "attention":
        widths = run.teacher_shape.width, run.student_shape.width
        check_pool(run.options, *widths, run.n_tasks)


CDL_PROMPT = DistillerFacts(
    "cdl.distillers.cdl_prompt:CDLPrompt",
    description="Mapping of the teacher's prompts, the first form of the method.",
    maps_prompts=True,
    counts_tasks=True,
    options={
        **COLUMNS,
        "mapping": choice(
            "attention",
            ["attention", "self_attention", "linear"],
            "Mapping from a teacher's prompt to a student's prefix.",
        ),
        "pool": integer(
            None,
            "Entries of the attention mapping's pool, all tasks together; adding a task then "
            "changes the results of all tasks. Alternative:",
            minimum=1,
        ),
        "pool_per_task": integer(
            None,
            "Entries of each task. The preset clean has 10, the preset released a pool of 100.",
            minimum=1,
        ),
        "length": tokens(8, "Tokens of a mapped prefix"),
        "teacher_prompts": choice(
            "learnt",
            ["learnt", "initial"],
            "The teacher's prompts that are mapped: as it learnt them; or initial values that are "
            "drawn for the student and never trained, a control.",
        ),
    },
    alternatives=("pool", "pool_per_task"),
    protocol=("coda_growth",),
    check=check,
    look=Look("#009E73", "v"),
)
