"""How distillers compare with their baselines, in a few sentences."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from cdl.reporting.names import distiller_of, names
from cdl.reporting.text import either, ends, number, p_value, seeds

SIGNIFICANT = 0.05  # of a p value after Holm's correction
UNDISTILLED = "the undistilled student"  # plain `none`
_CONFOUNDS = (
    "With few labels, students with a teacher can also see the examples without a label and "
    "then more views per step, and their class statistics can have other labels than those "
    "of the student that they are compared with"
)

Row = Mapping[Any, Any]


def sentences(cells: pd.DataFrame) -> list[str]:
    """Return the sentences, the most important ones first.

    Args:
        cells: rows of `intervals.csv` of one dataset, method and pair.
    """
    quoted = names(cells).map(lambda name: f"“{name}”" if ", " in name else name)
    baselines = dict(zip(cells.apply(distiller_of, axis=1), quoted, strict=True))
    baselines |= {"none": UNDISTILLED}
    cells = cells.assign(baseline=cells["baseline"].replace(baselines), quoted=quoted)
    compared = cells[cells["gain"].notna()]
    if compared.empty:
        alone = (cells.loc[cells["role"] == "student", "distiller"] == "none").all()
        lacking = "distilled student" if alone else "student without a teacher (grid.baseline)"
        return [f"No {lacking}, so there is nothing to compare."]
    rows = compared.to_dict("records")
    rows.sort(key=lambda row: (row["teacher"] == "", -row["gain"]))
    significant = [row for row in rows if row["gain_p_holm"] < SIGNIFICANT]
    better = [_better(row) for row in significant if row["gain"] > 0]
    worse = [_worse(row) for row in significant if row["gain"] < 0]
    unsure = [_unsure(row) for row in rows if not row["gain_p_holm"] < SIGNIFICANT]
    if not better:
        better = [f"No distiller beats {either(row['baseline'] for row in rows)} here"]
    first, *others = better
    confounds = [] if (compared["labels"] == "all").all() else [_CONFOUNDS]
    texts = [*confounds, first, *_gap(compared.iloc[0]), *others, *worse]
    if unsure:
        texts.append(f"Not significantly different: {', '.join(unsure)}")
    return [f"{sentence}." for sentence in [*texts, _legend(compared)]]


def _better(row: Row) -> str:
    text = f"{row['quoted']} is {number(row['gain'])} points better than {row['baseline']} "
    text += f"({ends(row, 'gain')}), {p_value(row['gain_p_holm'])}"
    if pd.notna(row["closed"]):
        closed = f"{number(row['closed'], '.0f')} % ({ends(row, 'closed', '.0f')})"
        text += f", and closes {closed} of the gap to the teacher"
    return text


def _worse(row: Row) -> str:
    lost = {"lost_low": -row["gain_high"], "lost_high": -row["gain_low"]}
    text = f"{row['quoted']} is {number(-row['gain'])} points worse than {row['baseline']} "
    return f"{text}({ends(lost, 'lost')}), {p_value(row['gain_p_holm'])}"


def _unsure(row: Row) -> str:
    points = f"{number(row['gain'], '+.1f')} points, {p_value(row['gain_p_holm'])}"
    return f"{row['quoted']} from {row['baseline']} ({points})"


def _gap(row: pd.Series) -> list[str]:
    """Describe the gap between a row's baseline and the teacher, in no or one sentence."""
    if pd.isna(row["gap"]):
        return []
    if row["gap_low"] > 0:
        text = f"The teacher is {number(row['gap'])} points better than {row['baseline']}"
        return [f"{text} ({ends(row, 'gap')})"]
    sure = "worse" if row["gap_high"] < 0 else "not significantly better"
    points = f"{number(row['gap'], '+.1f')} ({ends(row, 'gap', '+.1f')})"
    return [f"The teacher is {sure} than {row['baseline']}: {points}"]


def _legend(cells: pd.DataFrame) -> str:
    """Describe the intervals and p values."""
    return (
        f"95 % intervals over {either(cells['over'])}, {seeds(*cells['n'])}; p with Holm's "
        "correction for all gains on this dataset, significant below 0.05"
    )
