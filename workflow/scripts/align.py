"""Align the heads of a learner after one task."""

from cdl.runtime.jobs import arguments, job

with job(snakemake) as execution:
    from cdl.spec import LearnerSpec
    from cdl.training.align_task import align_task

    params, task = snakemake.params, int(snakemake.wildcards.task)
    spec = LearnerSpec.from_json(params.spec, teacher_query=params.teacher_query)
    how = {"trained_spec": LearnerSpec.from_json(params.trained_spec), "execution": execution}
    if params.teacher_spec is not None:
        how["teacher_spec"] = LearnerSpec.from_json(params.teacher_spec)
    align_task(spec, task, snakemake.output.aligned, **arguments(snakemake), **how)
