"""Determine which prompts the test images of each task use."""

from cdl.runtime.jobs import arguments, job

with job(snakemake) as execution:
    from cdl.evaluation.prompts import write_prompt_use
    from cdl.spec import LearnerSpec

    params, out, read = snakemake.params, snakemake.output, arguments(snakemake)
    how = {"images_per_class": params.images_per_class, "execution": execution}
    spec = LearnerSpec.from_json(params.spec, teacher_query=params.teacher_query)
    write_prompt_use(spec, out.prompts, out.record, task=params.task, **read, **how)
