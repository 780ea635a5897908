"""The summary table: one row per cell with means over seeds, intervals, differences and p values.

`summary.csv`, `intervals.csv`, `summary.md` and `summary.tex` have parts of it; the figures, the
page and the end of `cdl run` read `intervals.csv`.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cache
from typing import Any

import pandas as pd

from cdl.evaluation.predictions import read_predictions
from cdl.layout import RunFiles
from cdl.reporting.columns import CELL, INTERVALS, METRICS, NOT_RUN, PAIRED, SEEN
from cdl.reporting.intervals import Predictions, contrasts, intervals
from cdl.reporting.latex import DEFAULT, write_latex
from cdl.reporting.names import distiller_of, labels_shown, names_of
from cdl.reporting.tables import read, write
from cdl.reporting.text import as_markdown
from cdl.runtime.artifacts import read_json, write_json, write_text

NOTE = (
    "Percent and percentage points; mean ± sample standard deviation over n seeds. Final average "
    "accuracy: mean accuracy over all tasks after the last one. Forgetting: mean drop of earlier "
    "tasks from their best accuracy (Chaudhry et al., 2018). Task-incremental accuracy: accuracy "
    "among the classes of the example's own task. Calibration error: mean distance between "
    "accuracy and probability (15 bins); empty for ridge classifiers, whose outputs are not "
    "probabilities. Gain: over the student of the same data, method and seed in the column over. "
    "Gap to teacher: its accuracy minus the learner's. Protocol: hash of data, classes, views, "
    "normalisation, schedule and the learner's own weights; numbers with the same protocol are "
    "comparable; protocols.json spells it out. In brackets after a method or distiller: its "
    "variant, or the options that differ from the defaults."
)


def differences(results: pd.DataFrame) -> pd.DataFrame:
    """Add `gain_over_baseline` and `gap_to_teacher` (teacher minus student), in points.

    `baseline` names the student that the gain is over, empty without one. Both numbers are
    differences of the final average accuracies of runs with the same seed; NaN if there is no such
    run.
    """
    table = results.copy()
    accuracy = table.set_index("run")["final_average_accuracy"]
    own = table["final_average_accuracy"]
    other = table["baseline_run"] != table["run"]
    named = dict(zip(table["run"], table.apply(distiller_of, axis=1), strict=True))
    table["baseline"] = table["baseline_run"].map(named).where(other).fillna("")
    table["gain_over_baseline"] = (own - table["baseline_run"].map(accuracy)).where(other)
    table["gap_to_teacher"] = table["teacher_run"].map(accuracy) - own
    return table


def summarise(results: pd.DataFrame, predictions: Predictions) -> pd.DataFrame:
    """Return the summary table.

    Args:
        results: runs from `cdl.reporting.runs.tables_of`; unfinished ones have no numbers.
        predictions: maps the folder of a finished run to its predictions.

    Returns:
        The rows of `means` with the columns of `cdl.reporting.intervals.intervals`, which are
        empty for cells without a finished run.
    """
    finished = results[results["final_average_accuracy"].notna()]
    table = means(results).merge(intervals(finished, predictions), how="left", on=CELL)
    return table.fillna({"over": "", "not_closed": ""})


def means(results: pd.DataFrame) -> pd.DataFrame:
    """Average over seeds.

    Returns:
        One row per cell, in percent and percentage points: `n` finished seeds; mean and sample
        standard deviation (NaN for one seed) of every metric, of the gain over the student named
        `baseline` and of the gap to the teacher (teacher minus student) in final average accuracy.
        Gain and gap are paired by seed.
    """
    table = differences(results)
    values = [*METRICS, *PAIRED]
    groups = table.groupby(CELL, sort=False)
    summary = groups[values].agg(["mean", "std"])
    summary.columns = ["_".join(name_and_statistic) for name_and_statistic in summary.columns]
    summary.insert(0, "n", groups["final_average_accuracy"].count())
    for name in ("baseline", "trainable_parameters", *SEEN):
        summary[name] = groups[name].first()
    summary["protocol"] = groups["protocol"].agg(lambda hashes: "+".join(sorted({*hashes} - {""})))
    return summary.reset_index()


def display_table(summary: pd.DataFrame) -> pd.DataFrame:
    """Return the summary as text with two decimals, for Markdown."""

    def mean_and_deviation(row: Mapping[Hashable, Any], name: str) -> str:
        if row["n"] == 0:
            return NOT_RUN
        mean, std = row[f"{name}_mean"], row[f"{name}_std"]
        if pd.isna(mean):  # the run to compare with does not exist or is not finished
            return NOT_RUN if row["teacher"] and name in PAIRED else "-"
        return f"{mean:.2f}" if pd.isna(std) else f"{mean:.2f} ± {std:.2f}"

    lines, few = [], bool((summary["labels"] != "all").any())
    for row in summary.to_dict("records"):
        lines.append(
            {
                "dataset": row["dataset"],
                **({"labels per class": labels_shown(row)} if few else {}),
                **names_of(row),
                **{
                    m.short: mean_and_deviation(row, name) for name, m in METRICS.items() if m.short
                },
                "gain": mean_and_deviation(row, "gain_over_baseline"),
                "over": row["baseline"] or "-",
                "gap to teacher": mean_and_deviation(row, "gap_to_teacher"),
                "parameters": f"{row['trainable_parameters']:,.0f}" if row["n"] else NOT_RUN,
                "n": row["n"],
                "protocol": row["protocol"] or NOT_RUN,
            }
        )
    return pd.DataFrame(lines)


def write_summary(
    table: pd.DataFrame, results: pd.DataFrame, outputs: Any, columns: Sequence[str] = DEFAULT
) -> None:
    """Write the summary table as CSV, Markdown and LaTeX.

    Args:
        table: from `summarise`.
        results: the runs of the table.
        outputs: paths `csv`, `md` and `tex`.
        columns: columns of the LaTeX table, see `cdl.reporting.latex`.
    """
    write_text(outputs.md, as_markdown(display_table(table), NOTE))
    write_latex(results, table, outputs.tex, columns)
    summary = table.drop(columns=["over", "not_closed", *INTERVALS])
    missing = pd.DataFrame(False, summary.index, summary.columns)
    missing.loc[summary["n"] == 0, missing.columns.drop([*CELL, "n"])] = True
    for name in PAIRED:  # no finished run to compare with
        missing[f"{name}_mean"] |= (summary["teacher"] != "") & summary[f"{name}_mean"].isna()
    if missing.any(axis=None):
        summary = summary.round(6).astype(object).mask(missing, NOT_RUN)
    write(summary, outputs.csv)


def interval_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of `intervals.csv` of the finished cells of a summary table."""
    finished = table[table["n"] > 0]
    compared = finished["baseline"].where(finished["gain"].notna(), "")
    columns = [*CELL, "n", "over", "baseline", *INTERVALS, "not_closed"]
    return finished.assign(baseline=compared)[columns]


def write_summary_and_intervals(
    tables: Any, outputs: Any, files: Callable[[str], RunFiles]
) -> None:
    """Write the summary of finished runs, the intervals of its means and the contrasts.

    Args:
        tables: paths of `results` and of its record, `protocols`.
        outputs: paths of the summary as `csv`, `md` and `tex`, of the `intervals`, of the
            `contrasts`, and of the `record` with the hashes of all of them.
        files: maps the folder of a run to its files.

    Raises:
        CdlError: a table or predictions do not match their record.
    """
    results = read(tables.results, tables.protocols)
    predictions = cache(lambda run: read_predictions(files(run)))
    table = summarise(results, predictions)
    write_summary(table, results, outputs)
    write(interval_table(table), outputs.intervals)
    tested = {run: read_json(files(run).results)["data"]["test"] for run in results["run"]}
    write(contrasts(results, predictions, tested), outputs.contrasts, "%.9g")
    written = [outputs.csv, outputs.md, outputs.tex, outputs.intervals, outputs.contrasts]
    write_json(outputs.record, {}, files=written)
