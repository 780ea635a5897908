"""Bring a backbone into the form that all jobs read."""

from cdl.runtime.jobs import job

with job(snakemake):
    from cdl.backbones.fetch import fetch

    # `fetch` is read here and not in params: another mirror is no reason to run anything again
    fetching = snakemake.config.get("fetch", {})
    fetch(snakemake.output.weights, **snakemake.params.source, **fetching)
