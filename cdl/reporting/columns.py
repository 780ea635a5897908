"""Columns shared by all tables: the identity of a run, in one order everywhere."""

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
LINKS = ["run", "trained_run", "none_run", "teacher_run"]
TEXT = [*(name for name in CELL if name != "n_tasks"), *LINKS, "protocol"]
FORMER_NAMES = {"student": "backbone", "kd": "distiller", "kd_options": "distiller_options"}
