"""Tables as CSV files."""

from pathlib import Path

import pandas as pd

from cdl.reporting.columns import INTERVALS, METRICS, SEEN, TEXT
from cdl.reporting.costs import COST
from cdl.runtime.artifacts import check_files, replacing


def write(table: pd.DataFrame, path: str | Path, float_format: str = "%.6f") -> None:
    """Write a CSV file atomically, by default with six decimals."""
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, float_format=float_format)


def read(path: str | Path, record: str | Path) -> pd.DataFrame:
    """Read a CSV file of `write`: empty text stays empty, empty numbers become NaN.

    Raises:
        CdlError: the file does not match the hash in its record.
    """
    check_files(record, path)
    return pd.read_csv(
        path,
        dtype=dict.fromkeys([*TEXT, "class", "weights"], str),
        keep_default_na=False,
        na_values=dict.fromkeys([*METRICS, *SEEN, *COST, *INTERVALS], ""),
    )
