"""What to do after a run: the student to export, and an option that its table suggests."""

import shlex
from collections.abc import Collection

import pandas as pd

from cdl.reporting.columns import CELL

FORGETTING = 20.0  # points, above which unaligned heads are pointed out


def best_student(results: pd.DataFrame) -> pd.Series:
    """Return the run to export: the first seed of the cell with the highest mean accuracy.

    Only students are compared, or all runs if there is no student. They cost the same at
    prediction if they have one backbone; among several backbones the smallest table decides
    nothing, so the accuracy does.

    Args:
        results: one row per run, see `cdl.reporting.runs.collect`.
    """
    students = results[results["role"] == "student"]
    students = results if students.empty else students
    means = students.groupby(CELL, sort=False, dropna=False)["final_average_accuracy"]
    best = means.transform("mean").idxmax()
    return students.loc[best]


def lines(results: pd.DataFrame, unaligned: Collection[str], command: str) -> dict[str, str]:
    """Return lines for the end of a run, by their heading.

    Args:
        results: one row per run.
        unaligned: folders of the runs that train heads and do not align them.
        command: command that starts this program.
    """
    best, found = best_student(results), {}
    forgetting = results[results["run"].isin(unaligned)]["forgetting_max"].mean()
    if forgetting > FORGETTING:
        found["Hint"] = (
            f"without alignment of their heads, learners forget {forgetting:.0f} points; write "
            "methods: {" + str(best["method"]).split("+")[0] + ": {alignment: {preset: slca}}}"
        )
    mean = results[(results[CELL] == best[CELL]).all(axis=1)]["final_average_accuracy"].mean()
    found["Best"] = f"{best['distiller']} with {best['method']}, {mean:.1f} %"
    found["Next"] = f"{command} export {shlex.quote(best['run'])} -o student"
    return found
