"""Align the heads of a learner after one task."""

from cdl.runtime.jobs import job

with job(snakemake) as execution:
    from cdl.training.align_task import AlignInputs, AlignSpecs, align_task

    params, task = snakemake.params, int(snakemake.wildcards.task)
    inputs = AlignInputs.of_job(snakemake.input, params.names, params.query_names)
    specs, output = AlignSpecs.of_job(params), snakemake.output.aligned
    align_task(specs, task, inputs, output, execution=execution)
