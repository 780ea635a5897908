"""Draw which prompts the test images of a dataset use, as SVG, PDF and PNG."""

from cdl.runtime.jobs import job

with job(snakemake):
    from cdl.layout import RunFiles
    from cdl.reporting.prompts import write_prompt_figure

    write_prompt_figure(snakemake.wildcards.dataset, snakemake.input, snakemake.output, RunFiles)
