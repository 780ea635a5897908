"""Queries of one task's training views."""

from pathlib import Path

from cdl.jobs import job

with job(snakemake.log[0], snakemake.threads, snakemake.resources.gpu):
    from cdl.targets import write_queries

    size = write_queries(
        spec=snakemake.params.spec,
        task=int(snakemake.wildcards.task),
        data=str(Path(snakemake.input.data[0]).parent),
        backbone=snakemake.input.backbone,
        output=snakemake.output.queries,
        limit_gb=float(snakemake.resources.limit_gb),
        device=snakemake.resources.device,
        states=snakemake.params.states,
        save_minutes=float(snakemake.resources.save_minutes),
    )
    print(f"{snakemake.output.queries}: {size / 1e6:.2f} MB on disk")
