"""Write the best values as an overlay, all trials, and the flatness of each hyperparameter."""

from cdl.runtime.jobs import job

with job(snakemake):
    from cdl.reporting.tuning import write_tuned

    params, out = snakemake.params, snakemake.output
    write_tuned(params.trials, params.budget, params.grid, snakemake.input.kept, out)
