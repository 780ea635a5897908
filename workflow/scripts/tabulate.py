"""Means over seeds, gains and gaps."""

from cdl.runtime.jobs import job

with job(snakemake):
    from cdl.report.tables import read, write_summary

    write_summary(read(snakemake.input.results), snakemake.output.csv, snakemake.output.md)
