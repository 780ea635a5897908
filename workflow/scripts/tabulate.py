"""Compute means over seeds, gains and gaps, with intervals."""

from cdl.runtime.jobs import job

with job(snakemake):
    from cdl.layout import RunFiles
    from cdl.reporting.summary import write_summary_and_intervals

    write_summary_and_intervals(snakemake.input, snakemake.output, RunFiles)
