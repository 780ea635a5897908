"""Queries of one task's training views."""

from pathlib import Path

from cdl.runtime.jobs import job

with job(snakemake) as execution:
    from cdl.learning.targets import write_queries

    given, spec, task = snakemake.input, snakemake.params.spec, int(snakemake.wildcards.task)
    data, output = str(Path(given.data[0]).parent), snakemake.output.queries
    write_queries(spec, task, data, given.backbone, output, execution=execution)
