"""Bring a backbone into the form that all jobs read."""

from cdl.jobs import job

with job(snakemake.log[0]):
    from cdl.backbones import fetch

    # `fetch` is read here and not in params: another mirror is no reason to run anything again
    fetching = snakemake.config.get("fetch", {})
    fetch(snakemake.output.weights, **snakemake.params.source, **fetching)
