"""The figures of a dataset, as SVG, PDF and PNG."""

from cdl.runtime.jobs import job

with job(snakemake):
    from cdl.report.figures import write_figures
    from cdl.study.layout import RunFiles

    write_figures(snakemake.wildcards.dataset, snakemake.input, snakemake.output, RunFiles)
