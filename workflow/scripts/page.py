"""Write the page with all runs, and the resolved configuration."""

from cdl.runtime.jobs import job

with job(snakemake):
    from cdl.reporting.page import write_page

    params = snakemake.params
    write_page(snakemake.output, snakemake.input, params.configuration, params.shown)
