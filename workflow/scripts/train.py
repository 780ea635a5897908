"""Train a learner without a teacher on one task."""

from cdl.runtime.jobs import arguments, job

with job(snakemake) as execution:
    from cdl.spec import LearnerSpec
    from cdl.training.task import learn_task

    spec, out = LearnerSpec.from_json(snakemake.params.spec), snakemake.output
    task, read = int(snakemake.wildcards.task), arguments(snakemake)
    learn_task(spec, task, out.learner, out.losses, **read, execution=execution)
