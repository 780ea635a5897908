"""Measure all exported students."""

from cdl.runtime.jobs import job

with job(snakemake):
    from cdl.deployment.measure import measure

    params = snakemake.params
    measure(params.records, params.rows, params.rounds, snakemake.output)
