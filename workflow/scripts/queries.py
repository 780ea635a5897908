"""Queries of one task's training views."""

from cdl.runtime.jobs import job

with job(snakemake) as execution:
    from cdl.learners.factory import folders_of
    from cdl.learning.targets import write_queries

    given, spec, task = snakemake.input, snakemake.params.spec, int(snakemake.wildcards.task)
    how = {"backbone": given.backbone, "output": snakemake.output.queries, "execution": execution}
    write_queries(spec, task, **folders_of(given), **how)
