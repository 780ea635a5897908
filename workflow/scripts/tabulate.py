"""Means over seeds, gains and gaps."""

from cdl.jobs import job

with job(snakemake.log[0]):
    from cdl.artifacts import replacing
    from cdl.tables import markdown, read, summarise, write

    summary = summarise(read(snakemake.input.results))
    write(summary, snakemake.output.csv)
    with replacing(snakemake.output.md) as temporary:
        temporary.write_text(markdown(summary))
