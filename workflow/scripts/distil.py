"""One task of a student that learns from a teacher."""

from pathlib import Path

from cdl.jobs import job

with job(snakemake.log[0], snakemake.threads, snakemake.resources.gpu):
    from cdl.task import learn_task

    learn_task(
        spec=snakemake.params.spec,
        task=int(snakemake.wildcards.task),
        data=str(Path(snakemake.input.data[0]).parent),
        backbones=dict(zip(snakemake.params.names, snakemake.input.backbones, strict=True)),
        previous=snakemake.input.get("previous"),
        queries=snakemake.input.get("queries"),
        teacher=snakemake.input.get("teacher"),
        teacher_spec=snakemake.params.teacher_spec,
        teacher_queries=snakemake.input.get("teacher_queries"),
        targets=snakemake.input.get("targets"),
        output=snakemake.output.learner,
        losses=snakemake.output.losses,
        device=snakemake.resources.device,
        states=snakemake.params.states,
        save_minutes=float(snakemake.resources.save_minutes),
        capture=bool(snakemake.resources.capture),
    )
