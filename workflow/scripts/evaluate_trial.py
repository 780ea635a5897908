"""The first tasks of a trial: accuracy matrix, metrics, predictions of validation images."""

from cdl.runtime.jobs import job

with job(snakemake) as execution:
    from cdl.evaluation.evaluate import EvaluationInputs, evaluate_run

    params, out = snakemake.params, snakemake.output
    inputs = EvaluationInputs.of_job(snakemake.input, params.names, params.query_names)
    how = {"teacher_query": params.teacher_query, "images_per_class": params.images_per_class}
    evaluate_run(params.spec, inputs, out.results, out.predictions, execution=execution, **how)
