"""Compute the queries of the test images."""

from cdl.runtime.jobs import arguments, job

with job(snakemake) as execution:
    from cdl.spec import CacheSpec
    from cdl.training.targets import write_test_queries

    spec, output = CacheSpec.from_json(snakemake.params.spec), snakemake.output.queries
    write_test_queries(spec, output, **arguments(snakemake), execution=execution)
