"""Collect the results of all runs in tidy tables."""

from cdl.runtime.jobs import job

with job(snakemake):
    from cdl.layout import RunFiles
    from cdl.reporting.runs import write_collected

    params, out = snakemake.params, snakemake.output
    found = (params.rows, snakemake.input.results, params.costs, params.records)
    write_collected(*found, out, RunFiles)
