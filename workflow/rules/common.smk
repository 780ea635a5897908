"""What the rules share: the configuration's grid, and its answers per wildcard."""

import re

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

from cdl import EVALUATION
from cdl.data import FORMAT
from cdl.study import layout
from cdl.study.configuration import ConfigError, overlay, resolve
from cdl.study.contents import made_of_images
from cdl.study.inputs import Inputs
from cdl.inventory.overwriting import announced
from cdl.study.specifications import in_use, specification
from cdl.tuning.trials import TrialGrid


def told(function):
    """A function whose `ConfigError` becomes Snakemake's sentence instead of a traceback."""

    def asked(*arguments):
        try:
            return function(*arguments)
        except ConfigError as error:
            raise WorkflowError(str(error)) from None

    return asked


@told
def grid_of(files, given, config):
    return TrialGrid(resolve(overlay(files, given, config)))


GRID = grid_of(workflow.configfiles, workflow.config_settings.config, config)
INPUTS = Inputs(GRID)
if workflow.is_main_process:  # and not once more in every job
    for line in announced(GRID, workflow.configfiles):
        logger.info(line, extra={"cdl": True})
RUN = GRID.layout.run()  # patterns with wildcards
TASK = RUN.task("{task}")
REPORT = GRID.layout.report
TABLES = REPORT.tables
PACKED = layout.packed("{prepared}")
BACKBONE = layout.backbone("{fetched}")
QUERIES = layout.queries("{queried}")
ENV = Path(workflow.basedir, "workflow", "envs", "cdl.yaml")
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


def run_of(w):
    """The run that the wildcards name."""
    return GRID.run_of(w.dataset, w.method, w.learner, w.seed)


def spec_of(w):
    task = w.get("task")
    return specification(GRID, run_of(w), task and int(task)).to_json()


@told
def images_of(w):
    stream = specification(GRID, run_of(w), int(w.task)).stream
    return INPUTS.images_contents(w.dataset, stream, int(w.task))


def chain_of(wildcards):
    """The submission that a job is part of on a cluster: `chain` tasks of one learner."""
    run = run_of(wildcards)
    length = GRID.config["chain"] or run.n_tasks
    return f"{run.rule}{int(wildcards.task) // length}" if length > 1 else None


def growing(amount):
    """A resource that grows with every retry."""
    return lambda wildcards, attempt: amount * attempt


def tracked(paths, data_told=False):
    """Inputs, of which no time counts: large ones have records, the data maybe a parameter.

    See `made_of_images` for when the data have.
    """

    def flagged(name, value):
        if isinstance(value, list):
            return [flagged(name, path) for path in value]
        told = layout.is_large(value) or (data_told and name == "data")
        return ancient(value) if told else value

    return {name: flagged(name, value) for name, value in paths.items()}


def learning(w):
    run, task = run_of(w), int(w.task)
    as_before = made_of_images(GRID.files(run).task(task).learner, images_of(w))
    return tracked(INPUTS.learning(run, task), as_before)
