"""The table of deployment for people, and accuracy against latency as a figure."""

from cdl.runtime.jobs import job

with job(snakemake):
    from cdl.reporting.deployment import write_deployment

    write_deployment(snakemake.input, snakemake.output, snakemake.params.datasets)
