"""Fetch the files of a published dataset unless they exist, and check them."""

from cdl.runtime.jobs import job

with job(snakemake, at_start=True):
    from cdl.data.sources.archives import fetch

    # read here and not in params, so that another mirror does not cause jobs to run again
    fetching = snakemake.config.get("fetch", {})
    fetch(snakemake.output.record, **snakemake.params.source, **fetching)
