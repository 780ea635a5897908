"""Decode a dataset into a packed folder."""

from pathlib import Path

from cdl.runtime.jobs import job

with job(snakemake, at_start=True):
    from cdl.data.packing import prepare

    given = snakemake.params
    prepare(Path(snakemake.output.manifest).parent, **given.source, contents=given.contents)
