"""Evaluate a run after every task: accuracy matrix, metrics, predictions."""

from cdl.runtime.jobs import job

with job(snakemake) as execution:
    from cdl.evaluation.evaluate import evaluate_run
    from cdl.evaluation.inputs import EvaluationInputs
    from cdl.spec import LearnerSpec

    params, out = snakemake.params, snakemake.output
    inputs = EvaluationInputs.of_job(snakemake.input, params.names, params.query_names)
    spec = LearnerSpec.from_json(params.spec, teacher_query=params.teacher_query)
    how = {"images_per_class": params.images_per_class, "unknown": params.get("unknown", False)}
    evaluate_run(spec, inputs, out.results, out.predictions, **how, execution=execution)
