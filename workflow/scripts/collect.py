"""Results of all runs as tidy tables."""

from cdl.jobs import job

with job(snakemake.log[0]):
    from cdl.artifacts import write_json
    from cdl.tables import collect, write

    results, curves, cost, protocols = collect(
        snakemake.params.rows, list(snakemake.input.results), snakemake.params.costs
    )
    write(results, snakemake.output.results)
    write(curves, snakemake.output.curves)
    write(cost, snakemake.output.cost)
    write_json(snakemake.output.protocols, protocols)
