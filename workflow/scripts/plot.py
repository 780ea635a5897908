"""The figures of a dataset, as SVG and PNG."""

from cdl.jobs import job

with job(snakemake.log[0]):
    import numpy as np

    from cdl import figures
    from cdl.artifacts import read_json
    from cdl.gains import gains, read_predictions
    from cdl.tables import differences, read

    names = ("accuracy", "forgetting", "gain", "cost")
    out = {name: [snakemake.output[name], snakemake.output[f"{name}_png"]] for name in names}
    tables = (read(snakemake.input[name]) for name in ("curves", "results", "cost"))
    dataset = snakemake.wildcards.dataset
    curves, runs, cost = (table[table["dataset"] == dataset] for table in tables)
    matrices = {
        run: np.array(read_json(f"{run}/results.json")["matrix"], float) for run in runs["run"]
    }
    gained = gains(runs, read_predictions)
    figures.accuracy_over_tasks(curves, out["accuracy"])
    figures.forgetting(runs, matrices, out["forgetting"])
    figures.gain_over_none(gained, differences(runs), out["gain"])
    figures.cost_against_accuracy(runs, cost, out["cost"])
