"""Compute a classifier's answers for packed items."""

from cdl.runtime.jobs import arguments, job

with job(snakemake) as execution:
    from cdl.training.classified import classify

    given, out, data = snakemake.params, snakemake.output, arguments(snakemake)["data"]
    how = {"images_per_class": given.images_per_class, "execution": execution}
    classify(given.classifier, given.sha256, data, out.table, out.record, **how)
