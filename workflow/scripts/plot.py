"""Accuracy over tasks, one panel per method."""

from cdl.jobs import job

with job(snakemake.log[0]):
    from cdl.figures import accuracy_over_tasks
    from cdl.tables import read

    curves = read(snakemake.input.curves)
    accuracy_over_tasks(
        curves[curves["dataset"] == snakemake.wildcards.dataset],
        [snakemake.output.svg, snakemake.output.png],
    )
