"""Train a learner without a teacher on one task."""

from cdl.runtime.jobs import job

with job(snakemake) as execution:
    from cdl.spec import LearnerSpec
    from cdl.training.task import TaskInputs, learn_task

    params, out, task = snakemake.params, snakemake.output, int(snakemake.wildcards.task)
    inputs = TaskInputs.of_job(snakemake.input, params.names)
    spec, how = LearnerSpec.from_json(params.spec), {"execution": execution}
    learn_task(spec, task, inputs, out.learner, out.losses, **how)
