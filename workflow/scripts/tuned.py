"""The best values as an overlay, every trial, and how flat each hyperparameter is."""

from cdl.runtime.jobs import job

with job(snakemake):
    from cdl.reporting.tuning import write_tuned

    params, out = snakemake.params, snakemake.output
    write_tuned(params.trials, params.budget, snakemake.input.kept, out)
