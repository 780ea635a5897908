"""Results of all runs as tidy tables."""

from cdl.runtime.jobs import job

with job(snakemake):
    from cdl.tables.runs import write_collected
    from cdl.study.layout import RunFiles

    params, out = snakemake.params, snakemake.output
    write_collected(params.rows, snakemake.input.results, params.costs, out, RunFiles)
