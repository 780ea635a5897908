"""A run's predictions, and what its results lack and they say."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from cdl.evaluation.metrics import prediction_metrics
from cdl.report.files import RunFiles
from cdl.runtime.artifacts import check_files


def read_predictions(files: RunFiles) -> pd.DataFrame:
    """Read a run's predictions; raise `CdlError` unless they are those of its results."""
    check_files(files.results, files.predictions)
    return pd.read_parquet(files.predictions)


def complete(run: Mapping[str, Any], files: RunFiles) -> dict[str, Any]:
    """Return a run's results with what follows from its predictions, whatever version made it.

    Args:
        run: content of its `results.json`.
        files: where its predictions lie; they are read only where the results lack something.

    Raises:
        CdlError: the predictions are needed and are not those of its results.
    """
    if "per_class" in run:
        return dict(run)
    tasks = run["learner"]["stream"]["tasks"]
    found = prediction_metrics(read_predictions(files), run["classes"], tasks)
    return {**found, **run, "metrics": found["metrics"] | run["metrics"]}
