"""Compute the features of the test images that several runs share."""

from cdl.runtime.jobs import arguments, job

with job(snakemake) as execution:
    from cdl.evaluation.features import write_test_features
    from cdl.spec import LearnerSpec

    params, read = snakemake.params, arguments(snakemake)
    spec = LearnerSpec.from_json(params.spec, teacher_query=params.teacher_query)
    how = {"images_per_class": params.images_per_class, "unknown": params.unknown}
    write_test_features(spec, snakemake.output.features, **read, **how, execution=execution)
