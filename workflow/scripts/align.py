"""Align the heads of a learner after one task."""

from cdl.runtime.jobs import job

with job(snakemake) as execution:
    from cdl.spec import LearnerSpec
    from cdl.training.align_task import AlignInputs, align_task

    params, task = snakemake.params, int(snakemake.wildcards.task)
    inputs = AlignInputs.of_job(snakemake.input, params.names, params.query_names)
    spec = LearnerSpec.from_json(params.spec, teacher_query=params.teacher_query)
    how = {
        "trained_spec": LearnerSpec.from_json(params.trained_spec),
        "teacher_spec": params.teacher_spec and LearnerSpec.from_json(params.teacher_spec),
        "execution": execution,
    }
    align_task(spec, task, inputs, snakemake.output.aligned, **how)
