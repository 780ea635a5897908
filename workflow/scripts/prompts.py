"""Determine which prompts the test images of each task use."""

from cdl.runtime.jobs import job

with job(snakemake) as execution:
    from cdl.evaluation.inputs import EvaluationInputs
    from cdl.evaluation.prompts import write_prompt_use
    from cdl.spec import LearnerSpec

    params, out = snakemake.params, snakemake.output
    inputs = EvaluationInputs.of_job(snakemake.input, params.names, params.query_names)
    how = {"images_per_class": params.images_per_class, "execution": execution}
    spec = LearnerSpec.from_json(params.spec, teacher_query=params.teacher_query)
    write_prompt_use(spec, inputs, out.prompts, out.record, task=params.task, **how)
