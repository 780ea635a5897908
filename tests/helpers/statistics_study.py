"""A study of statistics: learners that share their training and differ in alignment."""

from lab import make_grid
from scripts import perform

from cdl.inventory.finished import write_configuration
from cdl.study.jobs import Jobs
from cdl.study.report_jobs import study_jobs

TAUGHT = {"labels": "teacher", "drift": "sdc"}
ENTRIES = {
    "self": {"block": "none", "variant": "self", "alignment": {"labels": "self"}},
    "taught": {"block": "none", "variant": "taught", "alignment": TAUGHT},
    "own": {"block": "kd", "variant": "own", "alignment": {"labels": "own", "answers": "test"}},
    "heads": {"block": "kd", "variant": "heads", "alignment": None},
}
STUDY = {
    "name": "statistics",
    "datasets": {"digits": {"labels": {"per_class": 3}}},
    "methods": {"coda_prompt": {"alignment": {"preset": "slca", "samples": 8, "epochs": 2}}},
    "grid": {"distillers": ["none", ENTRIES["self"], ENTRIES["taught"], "kd"]},
}
STUDY["grid"]["distillers"] += [ENTRIES["own"], ENTRIES["heads"]]
STUDY["grid"]["baseline"] = [{"over": "none+taught", "distiller": "kd"}]  # the same labels
RUNS = "results/statistics/digits/coda_prompt"
TEACHER = f"{RUNS}/teacher-vit_micro-q-vit_nano/seed0"
NONE = f"{RUNS}/student-vit_nano-q-vit_nano/seed0"
SELF = f"{RUNS}/student+self-vit_nano-q-vit_nano/seed0"
LABELLED = f"{RUNS}/none+taught-vit_nano-from-vit_micro-q-vit_nano/seed0"
KD = f"{RUNS}/kd-vit_nano-from-vit_micro-q-vit_nano/seed0"
OWN = f"{RUNS}/kd+own-vit_nano-from-vit_micro-q-vit_nano/seed0"
HEADS = f"{RUNS}/kd+heads-vit_nano-from-vit_micro-q-vit_nano/seed0"


def changed(**fields):
    """The study with the fields of variants replaced."""
    entries = [
        e if isinstance(e, str) else e | fields.get(e["variant"], {})
        for e in STUDY["grid"]["distillers"]
    ]
    return make_grid(STUDY | {"grid": STUDY["grid"] | {"distillers": entries}})


def jobs_of(grid=None):
    return Jobs(study_jobs(grid or make_grid(STUDY)))


def finish():
    """Run the jobs of the study up to its tables, without figures and page."""
    grid = make_grid(STUDY)
    write_configuration(grid, grid.layout.report.tables.configuration)
    for job in jobs_of():
        if job.rule not in ("plot", "page", "label_efficiency"):
            perform(job)
