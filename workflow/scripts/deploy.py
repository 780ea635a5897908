"""Export a finished run in fp32 and int8, and compare with the evaluation."""

from pathlib import Path

from cdl.runtime.jobs import job

with job(snakemake):
    from cdl.deployment.export import deploy

    run, out = Path(snakemake.input.results).parent, snakemake.output
    folders = {weights: Path(out[weights]).parent for weights in ("fp32", "int8")}
    deploy(run, folders, Path(out.record), snakemake.params.int8)
