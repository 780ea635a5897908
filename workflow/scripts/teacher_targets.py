"""Compute a teacher's logits for the training images of one task."""

from cdl.runtime.jobs import job

with job(snakemake) as execution:
    from cdl.spec import CacheSpec
    from cdl.training.targets import TargetInputs, write_targets

    inputs = TargetInputs.of_job(snakemake.input)
    spec = CacheSpec.from_json(snakemake.params.spec)
    task = int(snakemake.wildcards.task)
    write_targets(spec, task, inputs, snakemake.output.targets, execution=execution)
