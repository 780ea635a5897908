"""Shared by all rules: the grid of the configuration, its jobs, and look-ups by wildcards."""

import re

from snakemake.logging import logger

from cdl.inventory.overwriting import start_messages
from cdl.inventory.starting import refuse_learnt
from cdl.study.answers import check_every_answer
from cdl import layout
from cdl.study.configuration import overlay, resolve
from cdl.study.contents import made_of_images
from cdl.study.grid import Grid
from cdl.study.jobs import Jobs
from cdl.study.report_jobs import study_jobs
from cdl.study.trials import Trials, results_of_kept


@as_workflow_error
def grid_of(files, given, config):
    return Grid(resolve(overlay(files, given, config)))


GRID = grid_of(workflow.configfiles, workflow.config_settings.config, config)
STUDY = study_jobs(GRID)
TRIALS = as_workflow_error(Trials)(GRID)
JOBS = Jobs([*STUDY, *TRIALS.jobs()])
if workflow.is_main_process:  # once; every job reads this file too
    as_workflow_error(refuse_learnt)(JOBS)
    as_workflow_error(check_every_answer)(GRID)
    for line in start_messages(
        STUDY, workflow.configfiles, workflow.output_settings.verbose
    ):
        logger.info(line, extra={"cdl": True})
RUN = GRID.layout.run()  # patterns with wildcards
TASK = RUN.task("{task}")
REPORT = GRID.layout.report
TABLES = REPORT.tables
PACKED = layout.packed("{prepared}")
QUERIES = layout.queries("{queried}")
ANSWERS = layout.queries("{answered}")
CLASSIFIED = layout.queries("{classified}")
WRITERS = {}  # of the inputs of each rule, see `inputs_of`
ENV = HERE / "envs" / "cdl.yaml"
# Settings that change no result are resources, which do not cause jobs to run again. A GPU given by
# its index is not leased.
COMPUTE = GRID.config["compute"]
LEASES = int(COMPUTE["device"] in ("auto", "cuda"))
COMPUTING = {
    "gpu": LEASES,
    # one job more than may compute at the same time, which loads its inputs meanwhile
    "gpu_percent": LEASES * 100 // (COMPUTE["jobs_per_gpu"] + 1),
    "jobs_per_gpu": COMPUTE["jobs_per_gpu"],
    "device": COMPUTE["device"],
    "capture": int(COMPUTE["capture"]),
    "save_minutes": str(COMPUTE["save_minutes"]),
    "limit_gb": str(COMPUTE["targets_max_gb"]),
}
# names of learners without a teacher, and of distilled students
ALONE = r"[^/-]+-[^/-]+-q-[^/-]+"
DISTILLED = r"[^/-]+-[^/-]+-from-[^/-]+-q-[^/-]+"


wildcard_constraints:
    dataset=r"[^/]+",
    method=r"[^/]+",
    learner=f"{ALONE}|{DISTILLED}",
    seed=r"\d+",
    task=r"\d+",
    prepared=r"[^/]+",
    fetched=r"[^/]+",
    queried=r"(?!answers_|classifier_)[^/]+",
    answered=r"(answers|classifier)_[^/]+",
    classified=r"classifier_[^/]+",


def param(rule, name):
    """Return a function from wildcards to a parameter of a job."""
    return as_one_sentence(lambda w: JOBS.find(rule, dict(w.items())).params[name])


def chain_of(wildcards):
    """Return the group of a job on a cluster: `chain` tasks of one learner, with alignment."""
    kind = "distil" if re.fullmatch(DISTILLED, wildcards.learner) else "train"
    length = GRID.config["chain"]
    return (
        None
        if length == 1
        else f"{kind}{int(wildcards.task) // length if length else 0}"
    )


def growing(amount):
    """Return a resource that grows with every retry."""
    return lambda wildcards, attempt: amount * attempt


@as_one_sentence
def tracked(rule, w):
    """Return the inputs of a job, without times where records or parameters detect changes."""
    job = JOBS.find(rule, dict(w.items()))
    untimed = {"files", "measured", *(["data"] if made_of_images(job) else [])}

    def flagged(name, value):
        if isinstance(value, list):
            return [flagged(name, path) for path in value]
        if name == "files":  # the user's, which are in no storage
            value = local(value)
        return ancient(value) if name in untimed or layout.is_large(value) else value

    names = [*WRITERS[rule], "records"] if WRITERS[rule] else job.inputs
    return {n: flagged(n, job.inputs[n]) for n in names if n in job.inputs}


def inputs_of(rule, **writers):
    """Return an input function for named inputs and the rules that write them; none means all."""
    WRITERS[rule] = writers
    return unpack(lambda w: tracked(rule, w))


def without(outputs, *names):
    """Return outputs except those that a rule lists itself, with a caption for the report."""
    return {name: path for name, path in outputs.items() if name not in names}
