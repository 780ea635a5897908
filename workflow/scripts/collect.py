"""Collect the results of all runs in tidy tables."""

from cdl.runtime.jobs import job

with job(snakemake):
    from cdl.layout import RunFiles
    from cdl.reporting.runs import write_collected

    params, out = snakemake.params, snakemake.output
    write_collected(params.rows, snakemake.input.results, params.costs, out, RunFiles)
