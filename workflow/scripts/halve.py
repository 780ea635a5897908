"""Select the trials that continue after the first tasks."""

from cdl.runtime.jobs import job

with job(snakemake):
    from cdl.reporting.tuning import write_kept

    write_kept(snakemake.params.trials, snakemake.params.budget, snakemake.output.kept)
