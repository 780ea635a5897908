"""Report of hyperparameter trials: best values of each distiller, and flat ranges."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import yaml
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from cdl.reporting.style import canvas, look, paper, save
from cdl.reporting.tables import write
from cdl.reporting.text import as_markdown
from cdl.runtime.artifacts import read_json, write_json, write_text
from cdl.spec import LearnerSpec

_HEAD = """\
# Written by `snakemake tuned`: overlay with the best values of each distiller, found on validation
# examples with equal budgets; see the report in the folder `tuned`. To use them:
#   snakemake --cores 2 --configfile FILE {path}
"""


def write_kept(trials: Sequence[Mapping[str, Any]], budget: Mapping[str, Any], output: str) -> None:
    """Write which trials of each distiller continue: the best after the first tasks.

    Args:
        trials: from `cdl.study.trials.Trials.listed`, with finished `first` results.
        budget: from `Trials.budget`.
        output: JSON file to write; `kept` has the indices by distiller, the best first.
    """
    table = first_accuracies(trials)
    best = table.sort_values(["accuracy_first", "trial"], ascending=[False, True], kind="stable")
    groups = best.groupby("distiller", sort=False)["trial"]
    write_json(output, {"kept": {d: t.head(budget["kept"]).tolist() for d, t in groups}})


def first_accuracies(trials: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return one row per trial: accuracy after the first tasks and its standard error."""
    rows = []
    for trial in trials:
        mean, error = _accuracy(trial["first"])
        identity = {"distiller": trial["distiller"], "trial": trial["index"], **trial["values"]}
        rows.append(identity | {"accuracy_first": mean, "error_first": error})
    return pd.DataFrame(rows)


def all_accuracies(trials: Sequence[Mapping[str, Any]], kept: str) -> pd.DataFrame:
    """Add `accuracy` and `error` after all tasks to the rows of `first_accuracies`.

    They are NaN for trials that did not continue; `best` marks one trial of each distiller.
    """
    table, continued = first_accuracies(trials), read_json(kept)["kept"]
    means_and_errors = [
        _accuracy(trial["all"])
        if trial["index"] in continued[trial["distiller"]]
        else (np.nan, np.nan)
        for trial in trials
    ]
    table[["accuracy", "error"]] = means_and_errors
    table["best"] = table.index.isin(table.groupby("distiller")["accuracy"].idxmax())
    return table


def flat_ranges(table: pd.DataFrame, fields: Sequence[str]) -> pd.DataFrame:
    """Return the range of good values of each hyperparameter.

    Args:
        table: from `all_accuracies`.
        fields: columns of hyperparameters.

    Returns:
        One row per distiller and field: the `best` value; `low` and `high`, the smallest and
        largest value among the trials whose accuracy after the first tasks is within one standard
        error of the best; and `among`, the number of these trials.
    """
    rows = []
    for distiller, own in table.groupby("distiller", sort=False):
        top = own.sort_values("accuracy_first", kind="stable").iloc[-1]
        near = own[own["accuracy_first"] >= top["accuracy_first"] - top["error_first"]]
        for field in fields:
            if own[field].notna().all():
                best = own[field].to_numpy()[own["best"].to_numpy()][0]
                span = {"low": near[field].min(), "high": near[field].max(), "among": len(near)}
                rows.append({"distiller": distiller, "field": field, "best": best, **span})
    return pd.DataFrame(rows)


def write_tuned(
    trials: Sequence[Mapping[str, Any]],
    budget: Mapping[str, Any],
    grid: Mapping[str, Any],
    kept: str,
    outputs: Any,
) -> None:
    """Write the overlay, the table of trials, the report and a figure of each distiller.

    Args:
        trials: from `Trials.listed`, finished.
        budget: from `Trials.budget`.
        grid: other fields of the overlay's `grid`, from `Trials.renamed_grid`.
        kept: JSON file of `write_kept`.
        outputs: paths of `overlay`, `trials`, `text`, and `figures` in the order of distillers.
    """
    table = all_accuracies(trials, kept)
    fields = sorted({field for trial in trials for field in trial["values"]})
    ranges = flat_ranges(table, fields)
    write(table, outputs.trials)
    best = [trial["tuned"] for trial, is_best in zip(trials, table["best"], strict=True) if is_best]
    overlay = {"grid": {"distillers": best, **grid}, "tune": None}
    text = yaml.safe_dump(overlay, sort_keys=False)
    write_text(outputs.overlay, _HEAD.format(path=outputs.overlay) + text)
    write_text(outputs.text, _report(table, ranges, budget))
    for (distiller, own), output in zip(
        table.groupby("distiller", sort=False), outputs.figures, strict=True
    ):
        save(draw(own, ranges[ranges["distiller"] == distiller], budget), [output])


@paper()
def draw(own: pd.DataFrame, ranges: pd.DataFrame, budget: Mapping[str, Any]) -> Figure:
    """Draw the accuracy of the trials of one distiller against each hyperparameter.

    Args:
        own: rows of the distiller from `all_accuracies`.
        ranges: rows of the distiller from `flat_ranges`.
        budget: from `Trials.budget`.
    """
    name = own["distiller"].iloc[0]
    point = look(str(name).partition("+")[0]).point
    note = (
        f"{name}: {len(own)} trials; hollow: after {budget['first_tasks']} of {budget['tasks']} "
        "tasks, filled: after all tasks, ring: best; shaded: range within one standard error of "
        "the best hollow point"
    )
    fields = ranges["field"].tolist()
    figure, axes = canvas(fields, "", "accuracy on validation examples (%)", note, sharey=True)
    for axis, (_, row) in zip(axes, ranges.iterrows(), strict=True):
        axis.axvspan(row["low"], row["high"], color="#8899aa", alpha=0.18, linewidth=0)
        hollow = point | {"markerfacecolor": "none", "markeredgecolor": point["color"]}
        axis.plot(own[row["field"]], own["accuracy_first"], **hollow)
        axis.plot(own[row["field"]], own["accuracy"], **point)
        best = own[own["best"]]
        ring = {"marker": "o", "markersize": 11, "color": point["color"], "linestyle": "none"}
        axis.plot(best[row["field"]], best["accuracy"], markerfacecolor="none", **ring)
        if _is_log(row["field"], budget["fields"]):
            axis.set_xscale("log")
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_locator(NullLocator())
    return figure


def _accuracy(results: Sequence[str]) -> tuple[float, float]:
    """Return the mean final average accuracy of runs, in percent, and its standard error.

    With several seeds, the error is over seeds; with one seed, it is the sampling error of the
    validation images, computed by task.
    """
    runs = [read_json(path) for path in results]
    values = pd.Series([run["metrics"]["final_average_accuracy"] for run in runs])
    by_seed = values.groupby([LearnerSpec.from_json(run["learner"]).seed for run in runs]).mean()
    if len(by_seed) > 1:
        return float(by_seed.mean()), float(by_seed.std() / np.sqrt(len(by_seed)))
    errors = []
    for run in runs:
        share, n = np.array(run["matrix"][-1], float) / 100, np.array(run["test_images"])
        errors.append(np.sqrt((share * (1 - share) / n).sum()) / len(n))
    return float(values.mean()), float(100 * np.sqrt(np.square(errors).sum()) / len(errors))


def _is_log(field: str, given: Mapping[str, Any]) -> bool:
    name = field if field in given else f"distillers.*.{field.rpartition('.')[2]}"
    return bool(given[name]["log"])


def _report(table: pd.DataFrame, ranges: pd.DataFrame, budget: Mapping[str, Any]) -> str:
    """Return the report as Markdown."""
    best = table[table["best"]].set_index("distiller")
    lines = []
    for _, row in ranges.iterrows():
        trial = best.loc[row["distiller"]]
        lines.append(
            {
                "distiller": row["distiller"],
                "hyperparameter": row["field"],
                "best": f"{row['best']:.4g}",
                "flat from": f"{row['low']:.4g}",
                "to": f"{row['high']:.4g}",
                "trials in range": f"{row['among']} of {budget['trials']}",
                "accuracy": f"{trial['accuracy']:.2f} ± {trial['error']:.2f}",
            }
        )
    several = len(budget["seeds"]) > 1
    note = (
        f"Every distiller had the same budget: {budget['trials']} trials, points of one scrambled "
        f"Sobol sequence, that learnt {budget['first_tasks']} of {budget['tasks']} tasks; the best "
        f"{budget['kept']} learnt all tasks. Seeds "
        f"{', '.join(map(str, budget['seeds']))}, not used in the study. Accuracies are final "
        "average accuracies on validation examples, which are not used for training, ± one "
        f"standard error ({'over seeds' if several else 'of sampling the examples'}). Flat from, "
        "to: smallest and largest value among the trials whose accuracy after the first tasks is "
        "within one standard error of the best. Trials differ in all hyperparameters, so a wide "
        "range means that the hyperparameter matters little, while a narrow one may be due to "
        "chance."
    )
    return as_markdown(lines, note)
