"""Options, planning facts and checks of the built-in methods.

The sentence of an option is written here alone; the schema, the pages and `cdl list` take it from
here. Nothing here imports torch.
"""

from collections.abc import Mapping
from typing import Any

from cdl.methods import (
    NEEDED,
    PromptFacts,
    Prompting,
    always,
    check_entrance,
    check_layers,
)
from cdl.runtime.facts import refuse
from cdl.runtime.options import blocks, choice, flag, integer, integers, number, tokens

LABELLING: dict[str, Any] = {
    "labels": choice(
        None,
        ["own", "self", "nearest", "teacher"],
        "Classes of the images without a label: own (such images are not used), self (the most "
        "likely class of the head that is computed from the labelled images), nearest (the class "
        "with the nearest mean class token of its labelled images) or teacher (the teacher's most "
        "likely class; only in methods of an entry of grid.distillers, since teachers have no "
        "teacher); null: own, or the targets of the distiller, which accepts no other value.",
    ),
    "label_classes": choice(
        "task",
        ["task", "seen"],
        "Classes among which labels chooses: those of the task, or all classes seen so far, if the "
        "task of an image without a label is unknown; an image that gets a class of an earlier "
        "task is left out.",
    ),
}


def _check_l2p(run: Prompting) -> None:
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
    check=_check_l2p,
)


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


def _check_dual_prompt(run: Prompting) -> None:
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
    check=_check_dual_prompt,
)


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


def _check_coda_prompt(run: Prompting) -> None:
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
    check=_check_coda_prompt,
)


APT = PromptFacts(
    "cdl.methods.apt:APT",
    description="APT (Chen et al., ICCV 2025).",
    needs_query=False,
    gives_prefixes=False,
    adds_to_class_token=True,
    merges=True,
    options={
        "ema": number(0.7, "Weight of the old merged prompt in a merge.", minimum=0, maximum=1),
    },
)


VQ_PROMPT = PromptFacts(
    "cdl.methods.vq_prompt:VQPrompt",
    description="VQ-Prompt (Jiao et al., NeurIPS 2024).",
    chooses=True,
    options={
        "pool": integer(10, "Prompts of each block.", minimum=1),
        "length": tokens(8, "Tokens of a prompt"),
        "temperature": number(1.0, "Temperature of the softmax over the pool.", exclusiveMinimum=0),
        "commitment_weight": number(
            0.4,
            "Weight of the loss that moves the weighted mean to the selected prompt.",
            minimum=0,
        ),
        "codebook_weight": number(
            0.1,
            "Weight of the loss that moves the selected prompt to the weighted mean.",
            minimum=0,
        ),
        "layers": blocks([0, 1, 2, 3, 4], "Prompted blocks.", minItems=1),
    },
)


LORA = PromptFacts(
    "cdl.methods.lora:LoRA",
    description="LoRA (Hu et al., ICLR 2022), one set of branches for all tasks.",
    needs_query=False,
    gives_prefixes=False,
    options={
        "rank": integer(10, "Rank of a branch.", minimum=1),
        "parts": choice("qv", ["qv", "kv", "qkv"], "Projections with a branch."),
    },
    check=check_entrance("qkv"),
)


ADAPTERS = {  # options of the methods with adapters
    "bottleneck": integer(64, "Hidden units of an adapter.", minimum=1),
    "scale": number(0.1, "Factor of an adapter's output."),
    "dropout": number(
        0.1, "Share of hidden units set to 0 in training.", minimum=0, exclusiveMaximum=1
    ),
}
ADAPTER = PromptFacts(
    "cdl.methods.adapter:SharedAdapter",
    description="Adapters beside the MLP (AdaptFormer, Chen et al., NeurIPS 2022), one set for "
    "all tasks.",
    needs_query=False,
    gives_prefixes=False,
    options=ADAPTERS,
    check=check_entrance("mlp"),
)


def _check_inf_lora(run: Prompting) -> None:
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
            0.95,
            "Share of the energy that the memory spans after the first task.",
            minimum=0,
            maximum=1,
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
    check=_check_inf_lora,
)


SD_LORA = PromptFacts(
    "cdl.methods.sd_lora:SDLoRA",
    description="SD-LoRA (Wu et al., ICLR 2025): a branch per task on queries and values; earlier "
    "ones keep their direction and learn their magnitude.",
    needs_query=False,
    gives_prefixes=False,
    options={
        "ranks": integers(
            [10], "Rank of each task's branch; later tasks use the last one.", minItems=1
        ),
        "as_released": flag(
            False,
            "Magnitudes start anew in every task and directions are normalised factor by factor, "
            "so that the features jump between tasks.",
        ),
    },
    check=check_entrance("qkv"),
)


LOGIT_SCALE = number(
    20.0,
    "Factor of the cosines, so that softened outputs of a teacher are not flat; predicted classes "
    "do not depend on it.",
    exclusiveMinimum=0,
)
SIMPLE_CIL = PromptFacts(
    "cdl.methods.simple_cil:SimpleCIL",
    description="SimpleCIL (Zhou et al., IJCV 2024): nearest class mean of the frozen features.",
    needs_query=False,
    gives_prefixes=False,
    trains=False,
    reads_features=always,
    options={"logit_scale": LOGIT_SCALE, **LABELLING},
)


def _check_fecam(run: Prompting) -> None:
    """Raise `Unsuitable` if classes return in later tasks or a matrix is not positive."""
    expected = "tasks with different classes: fecam computes the covariance of a class once"
    refuse(run.domains, "", "tasks by domain", expected)
    most, alpha2 = run.options["alpha1"], run.options["alpha2"]
    expected = f"at most alpha1, {most:g}: distances could be negative otherwise"
    refuse(alpha2 > most, "alpha2", alpha2, expected)


FECAM = PromptFacts(
    "cdl.methods.fecam:FeCAM",
    description="FeCAM (Goswami et al., NeurIPS 2023): Mahalanobis distances to the class means of "
    "the frozen features, with a covariance per class.",
    needs_query=False,
    gives_prefixes=False,
    trains=False,
    reads_features=always,
    options={
        "tukey": number(
            None,
            "Power of Tukey's transformation, in the paper 0.5 for features after a ReLU; negative "
            "features become 0; null: none, as in the paper for ViTs.",
            exclusiveMinimum=0,
        ),
        "alpha1": number(
            1.0,
            "Shrinkage: factor of the mean variance, which is added to all variances of a class.",
            exclusiveMinimum=0,
        ),
        "alpha2": number(
            1.0,
            "Factor of the mean covariance, which is added to all covariances; at most alpha1.",
            minimum=0,
        ),
        "logit_scale": number(
            1.0,
            "Factor of the negative squared distances; predicted classes do not depend on it.",
            exclusiveMinimum=0,
        ),
        **LABELLING,
    },
    check=_check_fecam,
)


SSIAT = PromptFacts(
    "cdl.methods.ssiat:SSIAT",
    description="SSIAT (Tan et al., CVPR 2024): one set of adapters for all tasks, a cosine head.",
    needs_query=False,
    gives_prefixes=False,
    options={
        **ADAPTERS,
        "logit_scale": LOGIT_SCALE,
        "margin": number(
            0.0, "Cosine that is subtracted from that of the label; ImageNet-A: 0.3.", minimum=0
        ),
    },
    check=check_entrance("mlp"),
)


EASE = PromptFacts(
    "cdl.methods.ease:EASE",
    description="EASE (Zhou et al., CVPR 2024): adapters per task, completed class means; a pass "
    "per task.",
    needs_query=False,
    gives_prefixes=False,
    trains=False,
    options={
        **ADAPTERS,
        "alpha": number(0.1, "Weight of the adapters of other tasks.", minimum=0),
        "logit_scale": LOGIT_SCALE,
    },
    check=check_entrance("mlp"),
)


ENTERS = {"adapter": "mlp", "ssf": "affine", "vpt": "tokens"}  # entrance of each module
SESSION: dict[str, Any] = {
    **ADAPTERS,
    "tokens": integer(5, "Tokens per block of the module `vpt`.", minimum=1),
}


def check_module(run: Prompting, option: str) -> None:
    """Raise `Unsuitable` if the backbone lacks the entrance of a module."""
    module = run.options.get(option)
    if module is None:
        return
    entrance = ENTERS[module]
    expected = f"a module that can enter {run.backbone!r}; {module} needs {NEEDED[entrance]}"
    refuse(entrance not in run.shape.entrances, option, module, expected)


def _check_aper(run: Prompting) -> None:
    """Raise `Unsuitable` if the backbone lacks the entrance of the module."""
    check_module(run, "module")


APER = PromptFacts(
    "cdl.methods.aper:APER",
    description="APER (Zhou et al., IJCV 2024): a module tuned in the first task, then class "
    "means of frozen and tuned features.",
    needs_query=False,
    gives_prefixes=False,
    trains=False,
    options={
        "module": choice("adapter", list(ENTERS), "Module that the first task tunes."),
        **SESSION,
        "logit_scale": LOGIT_SCALE,
    },
    check=_check_aper,
)


SCALE = 1.0  # of logits that estimate zeros and ones


def unscaled(options: Mapping[str, Any]) -> bool:
    """Return whether the logits are those of a ridge without a factor."""
    return bool(options["prototypes"] == "ridge" and options.get("logit_scale", SCALE) == SCALE)


def _check_ranpac(run: Prompting) -> None:
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
    reads_features=lambda options: options.get("first_session") is None,
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
            "Module that the first task tunes before the solve; null: none.",
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
    check=_check_ranpac,
    numerics=3,  # 1: the larger of two equivalent systems; 2: no lower bound of the ridge
)


HEAD_ONLY = PromptFacts(
    "cdl.methods.head_only:HeadOnly",
    description="No prompts, only the head is trained: a lower bound.",
    needs_query=False,
    gives_prefixes=False,
    reads_features=always,
)
