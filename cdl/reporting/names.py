"""Display names of methods, distillers and teachers in tables and figures."""

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd


def distiller_of(row: Mapping[Hashable, Any] | pd.Series) -> str:
    """Return the display name of a row's distiller: `kd`, `kd (hot)`, `kd (alpha=0.9)`.

    In brackets: the variant or, without one, the options that differ from the defaults.
    """
    if row["role"] == "teacher":
        return "(teacher)"
    note = row["variant"] or row["distiller_options"]
    return f"{row['distiller']} ({note})" if note else str(row["distiller"])


def method_of(row: Mapping[Hashable, Any] | pd.Series) -> str:
    """Return the display name of a row's method, formed like that of `distiller_of`."""
    named = "+" in row["method"] or not row["method_options"]
    return str(row["method"]) if named else f"{row['method']} ({row['method_options']})"


def taught_by(row: Mapping[Hashable, Any] | pd.Series) -> str:
    """Return the display name of a row's teacher, with its method if it differs."""
    other = f" ({row['teacher_method']})" if row["teacher_method"] else ""
    return f"{row['teacher']}{other}" if row["teacher"] else "-"


def labels_shown(row: Mapping[Hashable, Any]) -> str:
    """Return the display name of the label levels of a row's learner and its teacher."""
    taught = f" (teacher: {row['teacher_labels']})" if row["teacher"] else ""
    return f"{row['labels']}{taught}"


def names_of(row: Mapping[Hashable, Any]) -> dict[str, str]:
    """Return the display names of a row: method, backbone, teacher, distiller."""
    return {
        "method": method_of(row),
        "backbone": row["backbone"],
        "teacher": taught_by(row),
        "distiller": distiller_of(row),
    }
