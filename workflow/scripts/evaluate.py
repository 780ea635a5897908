"""Evaluate a run after every task: accuracy matrix, metrics, predictions."""

from cdl.runtime.jobs import arguments, job

with job(snakemake) as execution:
    from cdl.evaluation.evaluate import evaluate_run
    from cdl.spec import LearnerSpec

    params, out, read = snakemake.params, snakemake.output, arguments(snakemake)
    spec = LearnerSpec.from_json(params.spec, teacher_query=params.teacher_query)
    how = {"images_per_class": params.images_per_class, "unknown": params.get("unknown", False)}
    evaluate_run(spec, out.results, out.predictions, **read, **how, execution=execution)
