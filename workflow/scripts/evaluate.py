"""All stages of a run: accuracy matrix, metrics, predictions."""

from pathlib import Path

from cdl.jobs import job

with job(snakemake.log[0], snakemake.threads, snakemake.resources.gpu):
    from cdl.evaluation import evaluate_run

    evaluate_run(
        spec=snakemake.params.spec,
        checkpoints=list(snakemake.input.checkpoints),
        data=str(Path(snakemake.input.data[0]).parent),
        backbones=dict(zip(snakemake.params.names, snakemake.input.backbones, strict=True)),
        queries=dict(zip(snakemake.params.query_names, snakemake.input.queries, strict=True)),
        teacher_query=snakemake.params.teacher_query,
        images_per_class=snakemake.params.images_per_class,
        results=snakemake.output.results,
        predictions=snakemake.output.predictions,
        device=snakemake.resources.device,
        states=snakemake.params.states,
    )
