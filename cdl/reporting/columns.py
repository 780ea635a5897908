"""Columns of the tables: the identity of a run, in one order everywhere, and its numbers.

A new metric is computed in `cdl/evaluation/metrics.py` and listed in `METRICS`; from there it comes
into `results.csv`, `summary.csv` and the details of a run on the page, with `short` into
`summary.md`.
"""

from typing import NamedTuple

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


class Number(NamedTuple):
    """A number of a run in tables and on the page.

    Attributes:
        heading: in the details of a run.
        form: how it is written.
        short: heading in tables of runs and means; a metric without it is not in `summary.md`.
    """

    heading: str
    form: str = ".2f"
    short: str = ""


METRICS = {  # columns of the results, in their order
    "final_average_accuracy": Number("final average accuracy (%)", short="final average accuracy"),
    "last_accuracy": Number("last accuracy, mean over examples"),
    "average_incremental_accuracy": Number("average incremental"),
    "learning_accuracy": Number("learning accuracy"),
    "backward_transfer": Number("backward transfer (points)", "+.2f"),
    "forgetting_max": Number("forgetting (points)", short="forgetting"),
    "forgetting_published": Number("forgetting, as in the papers"),
    "negative_flips": Number("negative flips of an update (%)"),
    "task_incremental_accuracy": Number(
        "task-incremental accuracy (%)", short="task-incremental accuracy"
    ),
    "calibration_error": Number("calibration error (%)", short="calibration error"),
    "negative_log_likelihood": Number("negative log-likelihood (nats)", ".3f"),
    "brier_score": Number("Brier score", ".3f"),
    "unknown_auroc": Number("unknown classes, AUROC (%)"),
    "unknown_fpr95": Number("unknown classes, FPR at 95 % TPR (%)"),
    "teacher_agreement": Number("agreement with the teacher (%)"),
    "baseline_teacher_agreement": Number("agreement of its baseline (%)"),
    "pseudo_label_accuracy": Number("right among labels assigned for alignment (%)"),
    "teacher_accuracy": Number("accuracy of the answers of a teacher of one's own (%)"),
}
PAIRED = {  # differences of final average accuracies of the same seed
    "gain_over_baseline": Number("gain over its baseline (points)", "+.2f", "gain"),
    "gap_to_teacher": Number("gap to teacher (points)", "+.2f", "gap to teacher"),
}
EFFORT = {  # what a run has seen, its size, and its cost
    "views_seen": Number("training views, all tasks", ",.0f"),
    "labelled_seen": Number("examples with a label, all tasks", ",.0f"),
    "unlabelled_seen": Number("examples without a label, all tasks", ",.0f"),
    "training_seconds": Number("training time, wall clock (s)", ".0f", "training (s)"),
    "processor_seconds": Number("training time, processors (s)", ".0f", "processor (s)"),
    "mean_load": Number("load of one core (%)", ".0f"),
    "peak_memory_mb": Number("peak memory (MB)", ".0f"),
    "trainable_parameters": Number("parameters trained", ",.0f", "parameters trained"),
    "parameters": Number("parameters, frozen ones included", ",.0f"),
}
AGREEMENT = {"teacher_agreement": "run", "baseline_teacher_agreement": "baseline_run"}
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
