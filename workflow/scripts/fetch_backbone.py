"""Bring a backbone into the form that all jobs read."""

from cdl.jobs import job

with job(snakemake.log[0]):
    from cdl.backbones import fetch

    fetch(snakemake.output.weights, **snakemake.params.source)
