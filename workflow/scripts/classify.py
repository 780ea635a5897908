"""Compute a classifier's answers for packed items."""

from pathlib import Path

from cdl.runtime.jobs import job

with job(snakemake) as execution:
    from cdl.training.classified import classify

    given, out = snakemake.params, snakemake.output
    data, how = str(Path(snakemake.input.data[0]).parent), {"execution": execution}
    how["images_per_class"] = given.images_per_class
    classify(given.classifier, given.sha256, data, out.table, out.record, **how)
