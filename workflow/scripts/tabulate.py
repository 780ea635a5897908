"""Means over seeds, gains and gaps."""

from cdl.runtime.jobs import job

with job(snakemake):
    from cdl.report.tables import write_summary_of

    write_summary_of(snakemake.input, snakemake.output)
