"""Compute the queries of the test images."""

from pathlib import Path

from cdl.runtime.jobs import job

with job(snakemake) as execution:
    from cdl.spec import CacheSpec
    from cdl.training.targets import write_test_queries

    given, spec = snakemake.input, CacheSpec.from_json(snakemake.params.spec)
    data, output = str(Path(given.data[0]).parent), snakemake.output.queries
    write_test_queries(spec, data, given.backbone, output, execution=execution)
