"""A teacher's logits for every training view of one task."""

from pathlib import Path

from cdl.jobs import job

with job(snakemake.log[0], snakemake.threads, snakemake.resources.gpu):
    from cdl.targets import write_targets

    size = write_targets(
        spec=snakemake.params.spec,
        task=int(snakemake.wildcards.task),
        data=str(Path(snakemake.input.data[0]).parent),
        backbone=snakemake.input.backbone,
        teacher=snakemake.input.teacher,
        queries=snakemake.input.get("queries"),
        output=snakemake.output.targets,
        limit_gb=float(snakemake.resources.limit_gb),
        device=snakemake.resources.device,
        states=snakemake.params.states,
        save_minutes=float(snakemake.resources.save_minutes),
    )
    print(f"{snakemake.output.targets}: {size / 1e6:.2f} MB on disk")
