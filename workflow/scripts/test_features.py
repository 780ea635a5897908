"""Compute the features of the test images that several runs share."""

from cdl.runtime.jobs import job

with job(snakemake) as execution:
    from cdl.evaluation.features import write_test_features
    from cdl.evaluation.inputs import EvaluationInputs
    from cdl.spec import LearnerSpec

    params, output = snakemake.params, snakemake.output.features
    inputs = EvaluationInputs.of_job(snakemake.input, params.names, params.query_names)
    spec = LearnerSpec.from_json(params.spec, teacher_query=params.teacher_query)
    how = {"images_per_class": params.images_per_class, "unknown": params.unknown}
    write_test_features(spec, inputs, output, **how, execution=execution)
