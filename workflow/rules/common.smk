"""What the rules share: the configuration's grid, and its answers per wildcard."""

import re

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

from cdl.inventory.overwriting import announced
from cdl.runtime.errors import CdlError
from cdl import layout
from cdl.study.configuration import ConfigError, overlay, resolve
from cdl.study.contents import made_of_images
from cdl.study.grid import Grid
from cdl.study.jobs import Jobs
from cdl.study.report_jobs import study_jobs
from cdl.study.trials import Trials, results_of_kept


def told(function):
    """A function whose error becomes Snakemake's sentence instead of a traceback."""

    def asked(*arguments):
        try:
            return function(*arguments)
        except (ConfigError, CdlError) as error:
            raise WorkflowError(str(error)) from None

    return asked


@told
def grid_of(files, given, config):
    return Grid(resolve(overlay(files, given, config)))


GRID = grid_of(workflow.configfiles, workflow.config_settings.config, config)
STUDY = study_jobs(GRID)
TRIALS = told(Trials)(GRID)
JOBS = Jobs([*STUDY, *TRIALS.jobs()])
RUNS = {run.folder: run for run in [*GRID.runs, *TRIALS.runs]}
if workflow.is_main_process:  # and not once more in every job
    for line in announced(STUDY, workflow.configfiles):
        logger.info(line, extra={"cdl": True})
RUN = GRID.layout.run()  # patterns with wildcards
TASK = RUN.task("{task}")
REPORT = GRID.layout.report
TABLES = REPORT.tables
PACKED = layout.packed("{prepared}")
QUERIES = layout.queries("{queried}")
ENV = HERE / "envs" / "cdl.yaml"
# How a job computes changes no number: resources, which are no reason to run again. A GPU named by
# its index is nobody's to lease.
COMPUTE = GRID.config["compute"]
LEASES = int(COMPUTE["device"] in ("auto", "cuda"))
COMPUTING = {
    "gpu": LEASES,
    # of the GPUs' queue: one job more than may compute at a time gets ready
    "gpu_percent": LEASES * 100 // (COMPUTE["jobs_per_gpu"] + 1),
    "jobs_per_gpu": COMPUTE["jobs_per_gpu"],
    "device": COMPUTE["device"],
    "capture": int(COMPUTE["capture"]),
    "save_minutes": str(COMPUTE["save_minutes"]),
    "limit_gb": str(COMPUTE["targets_max_gb"]),
}
# a learner without a teacher of its own, and one distilled from a teacher
ALONE = r"(teacher|student(\+[^/-]+)?)-[^/-]+-q-[^/-]+"
DISTILLED = r"[^/-]+-[^/-]+-from-[^/-]+-q-[^/-]+"


wildcard_constraints:
    dataset=r"[^/]+",
    method=r"[^/]+",
    learner=f"{ALONE}|{DISTILLED}",
    seed=r"\d+",
    task=r"\d+",
    prepared=r"[^/]+",
    fetched=r"[^/]+",
    queried=r"[^/]+",


def param(rule, name):
    """A parameter of a rule's jobs, by their wildcards."""
    return told(lambda w: JOBS.find(rule, dict(w.items())).params[name])


def chain_of(wildcards):
    """The submission that a job is part of on a cluster: `chain` tasks of one learner."""
    run = RUNS[
        f"{wildcards.dataset}/{wildcards.method}/{wildcards.learner}/seed{wildcards.seed}"
    ]
    length = GRID.config["chain"] or run.n_tasks
    return f"{run.rule}{int(wildcards.task) // length}" if length > 1 else None


def growing(amount):
    """A resource that grows with every retry."""
    return lambda wildcards, attempt: amount * attempt


@told
def tracked(rule, w):
    """Inputs of a job, without the times of those that records or parameters tell."""
    job = JOBS.find(rule, dict(w.items()))
    images = job.params.get("images")
    as_before = images is not None and made_of_images(job.records[0].path, images)
    untimed = {"files", "logs", *(["data"] if as_before else [])}

    def flagged(name, value):
        if isinstance(value, list):
            return [flagged(name, path) for path in value]
        return ancient(value) if name in untimed or layout.is_large(value) else value

    return {name: flagged(name, value) for name, value in job.inputs.items()}


def inputs_of(rule):
    """All inputs of a rule's jobs, by name."""
    return unpack(lambda w: tracked(rule, w))


def without(outputs, *names):
    """Outputs but those that a rule lists itself, with a caption for Snakemake's report."""
    return {name: path for name, path in outputs.items() if name not in names}
