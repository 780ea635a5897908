"""Compute the queries of the training images of one task."""

from cdl.runtime.jobs import arguments, job

with job(snakemake) as execution:
    from cdl.spec import CacheSpec
    from cdl.training.targets import write_queries

    spec, task = CacheSpec.from_json(snakemake.params.spec), int(snakemake.wildcards.task)
    read, output = arguments(snakemake), snakemake.output.queries
    write_queries(spec, task, output, **read, execution=execution)
