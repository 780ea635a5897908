"""Means over seeds, gains and gaps."""

from cdl.jobs import job

with job(snakemake.log[0]):
    from cdl.tables import read, write_summary

    write_summary(read(snakemake.input.results), snakemake.output.csv, snakemake.output.md)
