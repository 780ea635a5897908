"""Bring a published dataset's files to this disk, or find them there, and check them."""

from cdl.runtime.jobs import job

with job(snakemake):
    from cdl.data.sources.archives import fetch

    # `fetch` is read here and not in params: another mirror is no reason to run anything again
    fetching = snakemake.config.get("fetch", {})
    fetch(snakemake.output.record, **snakemake.params.source, **fetching)
