"""Tables as CSV files."""

from pathlib import Path

import pandas as pd

from cdl.reporting.columns import FORMER_NAMES, INTERVALS, METRICS, SEEN, TEXT
from cdl.reporting.costs import COST
from cdl.runtime.artifacts import check_files, replacing


def write(table: pd.DataFrame, path: str | Path, float_format: str = "%.6f") -> None:
    """Write a CSV file atomically, by default with six decimals."""
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, float_format=float_format)


def read(path: str | Path, record: str | Path) -> pd.DataFrame:
    """Read a CSV file of `write`: empty text stays empty, empty numbers become NaN.

    Columns of older versions get their present names.

    Raises:
        CdlError: the file does not match the hash in its record.
    """
    check_files(record, path)
    table = pd.read_csv(
        path,
        dtype=dict.fromkeys([*TEXT, *FORMER_NAMES, "class", "weights"], str),
        keep_default_na=False,
        na_values=dict.fromkeys([*METRICS, "forgetting", *SEEN, *COST, *INTERVALS], ""),
    )
    table = table.rename(columns=FORMER_NAMES)  # up to version 0.2
    if "run" in table and "trained_run" not in table:  # until version 0.2
        table["trained_run"] = table["run"]
        table[[*SEEN]] = float("nan")
    if "forgetting" in table:  # until version 0.2, the negative backward transfer
        table["backward_transfer"] = -table.pop("forgetting")
    return table
