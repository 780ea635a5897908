"""Check a teacher's answers for the training images of one task and write them as targets."""

from cdl.runtime.jobs import job

with job(snakemake) as execution:
    from cdl.spec import CacheSpec
    from cdl.training.answered import table_of, write_answers
    from cdl.training.context import folders_of

    spec, task = CacheSpec.from_json(snakemake.params.spec), int(snakemake.wildcards.task)
    data, answers = folders_of(snakemake.input)["data"], table_of(snakemake.input)
    how = {"test_images_per_class": snakemake.params.test_images_per_class, "execution": execution}
    write_answers(spec, task, data, answers, snakemake.output.targets, **how)
