"""Compute the queries of the training images of one task."""

from cdl.runtime.jobs import job

with job(snakemake) as execution:
    from cdl.spec import CacheSpec
    from cdl.training.context import folders_of
    from cdl.training.targets import write_queries

    given, task = snakemake.input, int(snakemake.wildcards.task)
    spec = CacheSpec.from_json(snakemake.params.spec)
    how = {"backbone": given.backbone, "output": snakemake.output.queries, "execution": execution}
    write_queries(spec, task, **folders_of(given), **how)
