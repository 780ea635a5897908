"""One dataset and pair beside the papers' numbers."""

from pathlib import Path

from cdl.jobs import job

with job(snakemake.log[0]):
    from cdl.published import write_comparison
    from cdl.tables import read_results, results_of

    rows = snakemake.params.rows
    write_comparison(
        Path(snakemake.output.md).with_suffix(""),
        *results_of(rows, read_results(rows, list(snakemake.input.results))),
        **snakemake.params.published,
    )
