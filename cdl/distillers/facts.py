"""Options, planning facts, checks and looks of the built-in distillers.

The sentence of an option is written here alone; the schema, the pages and `cdl list` take it from
here. Nothing here imports torch.
"""

from cdl.distillers import Distillation, DistillerFacts, weighs_teacher
from cdl.methods.facts import check_pool
from cdl.runtime.facts import Look, refuse
from cdl.runtime.options import choice, flag, integer, number, tokens

LABELS = {  # options shared by all built-in distillers
    "label_columns": choice(
        "task",
        ["task", "seen"],
        "Classes that the cross-entropy with the label compares: those of the current task, as in "
        "the papers, or all seen so far.",
    ),
}

NONE = DistillerFacts(
    "cdl.distillers.none:NoDistillation",
    description="No teacher.",
    options=LABELS,
    uses_teacher=lambda options: False,
    look=Look("#5E6670", "o"),
)


SOFT = {  # options shared by all distillers with a soft loss
    **LABELS,
    "alpha": number(
        0.5,
        "Weight of the soft loss by default; cross-entropy has the weight 1 - alpha.",
        minimum=0,
        maximum=1,
    ),
    "temperature": number(2.0, "Temperature of the soft loss.", exclusiveMinimum=0),
    "standardize": flag(
        False,
        "Compare z-scores of both models' logits (Sun et al., CVPR 2024).",
    ),
    "soft_weight": number(
        None,
        "Weight of the soft loss; null: alpha, so that the weights sum to one.",
        minimum=0,
    ),
    "confidence": number(
        None,
        "The soft loss includes only images with a teacher probability above this value; null: "
        "all images.",
        minimum=0,
        exclusiveMaximum=1,
    ),
}
COLUMNS = {  # options of a soft loss that may include earlier classes
    **SOFT,
    "soft_columns": choice(
        "task",
        ["task", "seen"],
        "Classes that the soft loss compares: those of the current task, as in the released code, "
        "or all seen so far, with the logits of the teacher's heads after their alignment.",
    ),
}


def _check_kd(run: Distillation) -> None:
    """Raise `Unsuitable` if z-scores are requested of logits that are not compared."""
    hard = run.options.get("targets") == "hard"
    expected = "false with targets: hard, which does not compare logits"
    refuse(hard and run.options.get("standardize"), "standardize", True, expected)


KD = DistillerFacts(
    "cdl.distillers.kd:SoftOrHardKD",
    description="Softened logits (Hinton et al., 2015), or the teacher's most likely class.",
    options={
        **COLUMNS,
        "targets": choice(
            "soft",
            ["soft", "hard"],
            "soft: the teacher's softened logits; hard: cross-entropy with its most likely class.",
        ),
    },
    check=_check_kd,
    suits_solve=True,
    look=Look("#0072B2", "D"),
)


def _check_tf_kd(run: Distillation) -> None:
    """Raise `Unsuitable` if the virtual teacher does not prefer the label in every task."""
    _check_two_classes(run)
    correct, chance = run.options["correct"], 1 / run.smallest_task
    expected = f"above {chance:.3g}, the share of each class in the smallest task"
    refuse(correct <= chance, "correct", correct, expected)


TF_KD = DistillerFacts(
    "cdl.distillers.tf_kd:TfKD",
    description="Softened labels without a teacher (Tf-KD, Yuan et al., CVPR 2020): the control.",
    options={
        **LABELS,
        "alpha": SOFT["alpha"],
        "temperature": SOFT["temperature"],
        "correct": number(
            0.9,
            "Probability that the virtual teacher gives to the label; the other classes of the "
            "task share the rest equally.",
            exclusiveMinimum=0,
            exclusiveMaximum=1,
        ),
    },
    uses_teacher=lambda options: False,
    check=_check_tf_kd,
    look=Look("#6B6B00", "*", "--"),
)


def _check_two_classes(run: Distillation) -> None:
    """Raise `Unsuitable` if a task has only one class."""
    alone, value = run.smallest_task < 2, f"tasks {run.tasks}"
    refuse(alone, "", value, "two classes or more in every task")


DKD = DistillerFacts(
    "cdl.distillers.dkd:DKD",
    description="Decoupled knowledge distillation (Zhao et al., CVPR 2022).",
    options={
        **SOFT,
        "temperature": number(4.0, "Temperature of the soft loss.", exclusiveMinimum=0),
        "target_weight": number(1.0, "Weight of the target term.", minimum=0),
        "non_target_weight": number(4.0, "Weight of the non-target term.", minimum=0),
    },
    check=_check_two_classes,
    look=Look("#B8578F", "P", "--"),
)


DIST = DistillerFacts(
    "cdl.distillers.dist:DIST",
    description="DIST (Huang et al., NeurIPS 2022): correlations in place of probabilities.",
    options={
        **SOFT,
        "alpha": number(0.0, "Cross-entropy has the weight 1 - alpha.", minimum=0, maximum=1),
        "temperature": number(1.0, "Temperature of the soft loss.", exclusiveMinimum=0),
        "soft_weight": number(
            2.0, "Weight of the soft loss; null: alpha.", nullable=True, minimum=0
        ),
        "inter_weight": number(
            1.0, "Weight of the correlation over classes, sample by sample.", minimum=0
        ),
        "intra_weight": number(
            1.0, "Weight of the correlation over samples, class by class.", minimum=0
        ),
    },
    look=Look("#0B5D2A", "p", ":"),
)


LWF = DistillerFacts(
    "cdl.distillers.lwf:LwF",
    description="LwF (Li and Hoiem, ECCV 2016): the student's own outputs before the task.",
    options={
        **SOFT,
        "alpha": number(
            0.0,
            "Weight of the teacher's soft loss; cross-entropy has the weight 1 - alpha. 0: no "
            "teacher.",
            minimum=0,
            maximum=1,
        ),
        "past_weight": number(3.0, "Weight of the cross-entropy with the past.", minimum=0),
        "past_temperature": number(2.0, "Temperature of the past.", exclusiveMinimum=0),
    },
    uses_teacher=weighs_teacher,
    reads_past=True,
    look=Look("#117733", "h", ":"),
)


def _check_se2d(run: Distillation) -> None:
    """Raise `Unsuitable` if there is no image without a label."""
    none = not (run.unlabelled or run.options["self_distillation"])
    expected = "true, or a dataset with labels or unlabelled: the past is compared on images "
    refuse(none, "self_distillation", False, f"{expected}without a label")


SE2D = DistillerFacts(
    "cdl.distillers.se2d:SE2D",
    description="SE2D (Michel et al., CVPR 2026): softened logits, and the student's own past on "
    "unlabelled images.",
    options={
        **SOFT,
        "alpha": number(
            1.0,
            "Weight of the soft loss by default; cross-entropy has the weight 1 - alpha. 0: no "
            "teacher.",
            minimum=0,
            maximum=1,
        ),
        "temperature": number(10.0, "Temperature of teacher and past.", exclusiveMinimum=0),
        "past_weight": number(1.0, "Weight of the loss with the past.", minimum=0),
        "self_distillation": flag(False, "Compare the past on all images."),
    },
    uses_teacher=weighs_teacher,
    reads_past=True,
    check=_check_se2d,
    look=Look("#44546A", "v", "-."),
)


def check_tokens(run: Distillation) -> None:
    """Raise `Unsuitable` if the tokens of two backbones do not correspond."""
    teacher, student = run.teacher_shape.grid, run.student_shape.grid
    what, remedy = "equally many patches", "; set size"
    if run.student_shape.tokenizer:
        what, remedy = "one tokenizer", ", or a distiller that compares outputs"
    expected = f"{what}, not {teacher} and {student}, for a comparison token by token{remedy}"
    refuse(teacher != student, "", run.pair, expected)
    differ = run.student_shape.class_token != run.teacher_shape.class_token
    expected = "two backbones with a class token, or two without, for a comparison token by token"
    refuse(differ, "", run.pair, expected)


FITNETS = DistillerFacts(
    "cdl.distillers.fitnets:FitNets",
    description="FitNets (Romero et al., ICLR 2015) with kd.",
    compares="last",
    options={**SOFT, "feature_weight": number(0.1, "Weight of the feature loss.", minimum=0)},
    check=check_tokens,
    look=Look("#332288", "<", ":"),
)


def _check_cls_feature(run: Distillation) -> None:
    """Raise `Unsuitable` if a backbone has no class token."""
    both = run.student_shape.class_token and run.teacher_shape.class_token
    refuse(not both, "", run.pair, "two backbones with a class token, which it compares")


CLS_FEATURE = DistillerFacts(
    "cdl.distillers.cls_feature:ClsFeature",
    description="Regression of the teacher's last class token, with kd.",
    compares="last",
    options={**SOFT, "feature_weight": number(1.0, "Weight of the feature loss.", minimum=0)},
    check=_check_cls_feature,
    look=Look("#2A8FBD", "h", "-."),
)


def _check_reviewkd(run: Distillation) -> None:
    """Raise `Unsuitable` if tokens do not correspond or the teacher has fewer blocks."""
    check_tokens(run)
    student, teacher = run.student_shape.depth, run.teacher_shape.depth
    expected = f"a teacher with at least {student} blocks, not {teacher}"
    refuse(teacher < student, "", run.pair, expected)


REVIEWKD = DistillerFacts(
    "cdl.distillers.reviewkd:ReviewKD",
    description="ReviewKD (after Chen et al., CVPR 2021) with kd.",
    compares="all",
    options={**SOFT, "feature_weight": number(0.2, "Weight of the feature loss.", minimum=0)},
    check=_check_reviewkd,
    look=Look("#882255", ">", "--"),
)


KD_TOKEN = DistillerFacts(
    "cdl.distillers.kd_token:KDToken",
    description="DeiT's distillation token (Touvron et al., ICML 2021).",
    enters=True,
    options={
        **COLUMNS,
        "kd_head": flag(
            True, "A separate head for the soft loss; false: the soft loss uses the class head."
        ),
        "start": choice(
            "uniform",
            ["uniform", "zeros"],
            "Initial values of the token: uniform on [0, 1), or zeros as in version 2024-12.",
        ),
        "freeze_after": integer(
            None,
            "Number of tasks after which token and prefixes, which all tasks share, stop learning; "
            "the heads go on; null: never.",
            minimum=1,
        ),
    },
    look=Look("#A87B00", "X", "-."),
)


def _check_kd_prompt(run: Distillation) -> None:
    """Raise `Unsuitable` if a KD prefix is in a block that the student does not have."""
    layers, depth = run.options["kd_layers"], run.student_shape.depth
    expected = f"at most the {depth} blocks of {run.student!r}"
    refuse((layers or 1) > depth, "kd_layers", layers, expected)


KD_PROMPT = DistillerFacts(
    "cdl.distillers.kd_prompt:KDPrompt",
    description="KD token, KD prefixes and KD head (KDP, D-CDL).",
    enters=True,
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
    check=_check_kd_prompt,
    look=Look("#D55E00", "^", "-."),
)


def _check_cdl_prompt(run: Distillation) -> None:
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
    check=_check_cdl_prompt,
    look=Look("#009E73", "v"),
)
