"""Compare one dataset and pair with published numbers."""

from cdl.runtime.jobs import job

with job(snakemake):
    from cdl.reporting.published import write_compared

    params = snakemake.params
    write_compared(params.rows, snakemake.input.results, params.published, snakemake.output.md)
