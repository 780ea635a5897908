"""One task of a learner without a teacher."""

from cdl.runtime.jobs import job

with job(snakemake) as execution:
    from cdl.learning.task import TaskInputs, learn_task

    params, out, task = snakemake.params, snakemake.output, int(snakemake.wildcards.task)
    inputs = TaskInputs.of_job(snakemake.input, params.names)
    how = {"execution": execution}
    learn_task(params.spec, task, inputs, out.learner, out.losses, **how)
