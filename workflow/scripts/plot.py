"""Draw the figures of a dataset as SVG, PDF and PNG."""

from cdl.runtime.jobs import job

with job(snakemake):
    from cdl.layout import RunFiles
    from cdl.reporting.figures import write_figures

    write_figures(snakemake.wildcards.dataset, snakemake.input, snakemake.output, RunFiles)
