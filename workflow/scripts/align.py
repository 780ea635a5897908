"""Align the heads of a learner after one task."""

from cdl.runtime.jobs import arguments, job

with job(snakemake) as execution:
    from cdl.spec import LearnerSpec
    from cdl.training.align_task import align_task

    given, task, how = snakemake.params, int(snakemake.wildcards.task), {"execution": execution}
    spec = LearnerSpec.from_json(given.spec, teacher_query=given.teacher_query)
    how["trained_spec"] = LearnerSpec.from_json(given.trained_spec)
    how["teacher_spec"] = given.teacher_spec and LearnerSpec.from_json(given.teacher_spec)
    align_task(spec, task, snakemake.output.aligned, **arguments(snakemake), **how)
