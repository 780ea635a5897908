"""Fetch a backbone and convert it to the format that all jobs read."""

from cdl.runtime.jobs import job

with job(snakemake, at_start=True):
    from cdl.backbones.fetch import fetch

    # read here and not in params, so that another mirror does not cause jobs to run again
    fetching = snakemake.config.get("fetch", {})
    fetch(snakemake.output.weights, **snakemake.params.source, **fetching)
