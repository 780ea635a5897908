# Continual distillation learning. Everything that exists follows from one configuration:
#   snakemake --cores 2                                      the default run
#   snakemake --cores 2 --configfile FILE                    another one
#   snakemake --cores 2 tuned --configfile FILE              what its `tune` asks for
from pathlib import Path

from snakemake.shell import shell
from snakemake.utils import min_version

from cdl.warm import server
from cdl.warm.scheduler import look_rarely

min_version("9.3")

if not workflow.configfiles:

    configfile: Path(workflow.basedir, "config", "default.yaml")


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/prepare.smk"
include: "workflow/rules/cache.smk"
include: "workflow/rules/learn.smk"
include: "workflow/rules/evaluate.smk"


if GRID.deployed:

    include: "workflow/rules/deploy.smk"


include: "workflow/rules/tables.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/tune.smk"


onstart:
    look_rarely(workflow.scheduler)
    if COMPUTE["warm"]:
        shell.prefix(server.prefix_of(workflow))


rule all:
    default_target: True
    input:
        STUDY.targets,
    message:
        "all files of configuration '{GRID.config[name]}' exist"
