"""Write the table and the figure of accuracy against labels."""

from cdl.runtime.jobs import job

with job(snakemake):
    from cdl.layout import RunFiles
    from cdl.reporting.label_efficiency import write_label_efficiency

    given, out, w = snakemake.input, snakemake.output, snakemake.wildcards
    write_label_efficiency(w.dataset, snakemake.params.levels, given, out, RunFiles)
