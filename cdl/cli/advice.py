"""What to do after a run: the student to export, and what its table suggests to change."""

import shlex
from collections.abc import Collection

import pandas as pd

from cdl.reporting.columns import CELL, FEW_SEEDS

FORGETTING = 20.0  # points, above which heads that are not aligned are pointed out


def best_cell(results: pd.DataFrame) -> pd.DataFrame:
    """Return the runs of the student with the highest mean accuracy, the first seed first.

    Without a student, these are the runs of the best learner. Students of one backbone cost about
    the same at prediction.

    Args:
        results: one row per run, see `cdl.reporting.runs.tables_of`.
    """
    students = results[results["role"] == "student"]
    students = results if students.empty else students
    means = students.groupby(CELL, sort=False)["final_average_accuracy"].transform("mean")
    best = students.iloc[int(means.to_numpy().argmax())]
    return students[(students[CELL] == best[CELL]).all(axis=1)]


def advice(results: pd.DataFrame, unaligned: Collection[str], command: str) -> dict[str, str]:
    """Return the lines at the end of a run, by their heading.

    Args:
        results: one row per run.
        unaligned: folders of the runs that train heads and do not align them.
        command: command that starts this program.
    """
    best, found = best_cell(results), {}
    forgetful = results[results["run"].isin(unaligned)]
    forgetful = forgetful[forgetful["forgetting_max"] > FORGETTING]
    if len(forgetful):
        method = str(forgetful["method"].iloc[0]).partition("+")[0]
        points = forgetful["forgetting_max"].mean()
        found["Hint"] = (
            f"heads that are not aligned forget {points:.0f} points on average; set methods: "
            f"{{{method}: {{alignment: {{preset: slca}}}}}}"
        )
    first = best.iloc[0]
    accuracy, n = best["final_average_accuracy"].mean(), len(best)
    taught = "" if first["distiller"] == "none" else f"{first['distiller']} with "
    few = f" ({n} seed{'s' * (n > 1)}: too few for a claim)" if n < FEW_SEEDS else ""
    found["Best"] = f"{taught}{first['method']}, {accuracy:.1f} %{few}"
    found["Next"] = f"{command} export {shlex.quote(str(first['run']))} -o student"
    return found
