"""Results of all runs as tidy tables."""

from cdl.runtime.jobs import job

with job(snakemake):
    from cdl.report.tables import write_collected

    write_collected(
        snakemake.params.rows, snakemake.input.results, snakemake.params.costs, snakemake.output
    )
