"""Write the table of deployment, and the figure of accuracy against latency."""

from cdl.runtime.jobs import job

with job(snakemake):
    from cdl.reporting.deployment import write_deployment

    write_deployment(snakemake.input, snakemake.output, snakemake.params.datasets)
