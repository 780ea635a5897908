"""Whatever is finished: the summary, and each pair beside the papers' numbers."""

from cdl.runtime.jobs import job

with job(snakemake):
    from cdl.tables.completed_runs import tabulate

    params = snakemake.params
    tabulate(params.outputs, params.rows, params.runs, params.comparisons)
