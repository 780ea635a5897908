"""Means over seeds, gains and gaps, and how sure they are."""

from cdl.runtime.jobs import job

with job(snakemake):
    from cdl.report.intervals import write_summary_and_intervals
    from cdl.study.layout import RunFiles

    write_summary_and_intervals(snakemake.input, snakemake.output, RunFiles)
