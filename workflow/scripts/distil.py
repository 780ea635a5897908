"""Train a student on one task with a teacher."""

from cdl.runtime.jobs import arguments, job

with job(snakemake) as execution:
    from cdl.spec import LearnerSpec
    from cdl.training.task import learn_task

    params, out, task = snakemake.params, snakemake.output, int(snakemake.wildcards.task)
    spec, given = LearnerSpec.from_json(params.spec), params.teacher_spec
    teacher = None if given is None else LearnerSpec.from_json(given)  # None: only its answers
    how = {"teacher_spec": teacher, "execution": execution}
    learn_task(spec, task, out.learner, out.losses, **arguments(snakemake), **how)
