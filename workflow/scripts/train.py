"""One task of a learner without a teacher."""

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
        output=snakemake.output.learner,
        losses=snakemake.output.losses,
        device=snakemake.resources.device,
        states=snakemake.params.states,
        save_minutes=float(snakemake.resources.save_minutes),
        capture=bool(snakemake.resources.capture),
    )
