"""Read the predictions of a run. Does not import torch."""

import pandas as pd

from cdl.layout import RunFiles
from cdl.runtime.artifacts import check_files


def read_predictions(files: RunFiles) -> pd.DataFrame:
    """Read a run's predictions; raise `CdlError` unless they match its results."""
    check_files(files.results, files.predictions)
    return pd.read_parquet(files.predictions)


def classes_of(predictions: pd.DataFrame) -> pd.Series:
    """Return the class of each test image, by its index in the split."""
    classes: pd.Series = predictions.set_index("image")["class"]
    return classes
