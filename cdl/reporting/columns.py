"""Columns of the tables: the identity of a run, in one order everywhere, and its numbers."""

IDENTITY = [
    "dataset",
    "method",
    "teacher",  # backbone of the teacher; empty without one
    "backbone",  # of the learner itself, a teacher or a student
    "distiller",
    "variant",
    "seed",
    "n_tasks",
    "role",
    "query",
    "labels",
    "teacher_labels",
    "teacher_method",
    "method_options",
    "distiller_options",
]
FEW_SEEDS = 5  # fewer are too few for a claim
CELL = [name for name in IDENTITY if name != "seed"]  # runs of a cell differ only in their seed
# folders of a run, of its checkpoints before alignment, and of the runs it is compared with
LINKS = ["run", "trained_run", "baseline_run", "teacher_run"]
TEXT = [*(name for name in CELL if name != "n_tasks"), *LINKS, "protocol"]
AGREEMENT = {"teacher_agreement": "run", "baseline_teacher_agreement": "baseline_run"}
METRICS = [
    "final_average_accuracy",
    "last_accuracy",
    "average_incremental_accuracy",
    "learning_accuracy",
    "backward_transfer",
    "forgetting_max",
    "forgetting_published",
    "negative_flips",
    "task_incremental_accuracy",
    "calibration_error",
    "negative_log_likelihood",
    "brier_score",
    "unknown_auroc",
    "unknown_fpr95",
    *AGREEMENT,
    "pseudo_label_accuracy",
    "teacher_accuracy",
]
SHARES = {  # columns in percent by the names of two numbers of examples in the results
    "pseudo_label_accuracy": ("pseudo_labels_right", "pseudo_labels"),
    "teacher_accuracy": ("teacher_answers_right", "teacher_answers"),
}
SEEN = {  # columns by their names in the results
    "views_seen": "views",
    "labelled_seen": "labelled",
    "unlabelled_seen": "unlabelled",
}
ESTIMATES = ("accuracy", "gain", "gap", "closed", "forgetting")  # each has `_low` and `_high`
INTERVALS = [f"{name}{end}" for name in ESTIMATES for end in ("", "_low", "_high")]
INTERVALS += ["gain_p", "gain_p_holm"]  # numbers of `cdl.reporting.intervals`
NOT_RUN = "not run"  # in the place of a number
