"""Check a teacher's answers for the training images of one task and write them as targets."""

from cdl.runtime.jobs import arguments, job

with job(snakemake) as execution:
    from cdl.spec import CacheSpec
    from cdl.training.answered import write_answers

    spec, task = CacheSpec.from_json(snakemake.params.spec), int(snakemake.wildcards.task)
    read, out = arguments(snakemake), snakemake.output
    answers, *_ = read.get("files") or read["table"]  # a user's file, or a classifier's table
    how = {"test_images_per_class": snakemake.params.test_images_per_class, "execution": execution}
    write_answers(spec, task, out.targets, data=read["data"], answers=answers, **how)
