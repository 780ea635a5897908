"""One dataset and pair beside the papers' numbers."""

from pathlib import Path

from cdl.jobs import job

with job(snakemake.log[0]):
    from cdl.artifacts import read_json
    from cdl.published import write_comparison
    from cdl.tables import results_of

    write_comparison(
        Path(snakemake.output.md).with_suffix(""),
        *results_of(snakemake.params.rows, [read_json(path) for path in snakemake.input.results]),
        **snakemake.params.published,
    )
