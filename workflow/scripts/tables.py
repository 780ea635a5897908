"""Whatever is finished: the summary, and each pair beside the papers' numbers."""

from cdl.jobs import job

with job(snakemake.log[0]):
    from cdl.artifacts import write_json
    from cdl.finished import finished
    from cdl.published import write_comparison
    from cdl.tables import results_of, write, write_summary

    folder, params = snakemake.params.folder, snakemake.params
    results, protocols = results_of(params.rows, [finished(**run) for run in params.runs])
    write(results[results["protocol"] != ""], f"{folder}/results.csv")
    write_json(f"{folder}/protocols.json", protocols)
    write_summary(results, f"{folder}/summary.csv", f"{folder}/summary.md")
    for name, comparison in params.comparisons.items():
        mine = results[results["run"].isin(comparison["runs"])]
        write_comparison(f"{folder}/{name}", mine, protocols, **comparison["published"])
