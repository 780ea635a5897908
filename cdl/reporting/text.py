"""Numbers, intervals, lists and tables as text, the same in every table, figure and sentence."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

INTERVAL = "95 % interval over"


def number(value: float, form: str = ".1f") -> str:
    """Return a number with a minus sign; a dash for a missing one."""
    return "–" if math.isnan(value) else f"{value:{form}}".replace("-", "−")


def ends(row: Mapping[Any, Any] | pd.Series, name: str, form: str = ".1f") -> str:
    """Return the interval of a column of `cdl.reporting.columns.ESTIMATES`: `1.0 to 2.0`."""
    return " to ".join(number(row[f"{name}{end}"], form) for end in ("_low", "_high"))


def p_value(p: float) -> str:
    """Return a p value: `p < 0.001`, `p = 0.042`, `p not defined`."""
    if math.isnan(p):
        return "p not defined"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def seeds(*counts: int) -> str:
    """Return numbers of seeds: `1 seed`, `2 or 5 seeds`."""
    return f"{either(sorted({*counts}))} seed{'' if {*counts} == {1} else 's'}"


def either(values: Iterable[Any]) -> str:
    """Return different values in their order, without empty ones: `kd or dkd`."""
    return " or ".join(dict.fromkeys(str(value) for value in values if value != ""))


def as_markdown(rows: pd.DataFrame | Sequence[Mapping[Any, str]], note: str) -> str:
    """Return rows of text as a Markdown table with a note below."""
    table = pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)
    return f"{table}\n\n{note}\n"
