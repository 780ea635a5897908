"""Queries of the test views."""

from pathlib import Path

from cdl.jobs import job

with job(snakemake.log[0], snakemake.threads, snakemake.resources.gpu):
    from cdl.targets import write_test_queries

    size = write_test_queries(
        spec=snakemake.params.spec,
        data=str(Path(snakemake.input.data[0]).parent),
        backbone=snakemake.input.backbone,
        output=snakemake.output.queries,
        device=snakemake.resources.device,
    )
    print(f"{snakemake.output.queries}: {size / 1e6:.2f} MB on disk")
