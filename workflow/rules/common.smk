"""What the rules share: the configuration's grid, and its answers per wildcard."""

import re

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

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


def spec_of(wildcards):
    task = wildcards.get("task")
    return specification(GRID, run_of(wildcards), None if task is None else int(task))


@told
def images_of(wildcards):
    stream = spec_of(wildcards)["stream"]
    return INPUTS.images_contents(wildcards.dataset, stream, int(wildcards.task))


def chain_of(wildcards):
    """The submission that a job is part of on a cluster: `chain` tasks of one learner."""
    run = run_of(wildcards)
    length = GRID.config["chain"] or run.n_tasks
    return f"{run.rule}{int(wildcards.task) // length}" if length > 1 else None


def growing(amount):
    """A resource that grows with every retry."""
    return lambda wildcards, attempt: amount * attempt


def tracked(paths, *told):
    """Inputs, of which no time counts: large ones have records, those `told` a parameter."""

    def flagged(value, apart):
        if isinstance(value, list):
            return [flagged(path, apart) for path in value]
        return ancient(value) if apart or layout.is_large(value) else value

    return {name: flagged(value, name in told) for name, value in paths.items()}


def of_images(paths, output, images):
    """Inputs whose data count by the task's own images, a parameter, where these are the same."""
    return tracked(paths, *(["data"] if made_of_images(output, images) else []))


def learning(w):
    run, task = run_of(w), int(w.task)
    output = GRID.files(run).task(task).learner
    return of_images(INPUTS.learning(run, task), output, images_of(w))
