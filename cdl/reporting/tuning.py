"""What trials came to: the best values of each distiller, and how flat each hyperparameter is."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import yaml
from matplotlib.ticker import LogLocator, NullLocator

from cdl.reporting.runs import write
from cdl.reporting.style import canvas, look, paper, save
from cdl.runtime.artifacts import read_json, replacing, write_json
from cdl.spec import LearnerSpec

_HEAD = """\
# Written by `snakemake tuned`: an overlay with the best values of each distiller, found on
# validation images at equal budget; the report in the folder `tuned` says how. To take them:
#   snakemake --cores 2 --configfile FILE {path}
"""


def write_kept(trials: Sequence[Mapping[str, Any]], budget: Mapping[str, Any], output: str) -> None:
    """Write which trials of each distiller go on: those best after the first tasks.

    Args:
        trials: of `cdl.study.trials.Trials.asked`, their `first` results finished.
        budget: of `Trials.budget`.
        output: record to write, `kept`: indices by distiller, the best first.
    """
    table = first_accuracies(trials)
    best = table.sort_values(["accuracy_first", "trial"], ascending=[False, True], kind="stable")
    groups = best.groupby("distiller", sort=False)["trial"]
    write_json(output, {"kept": {d: t.head(budget["kept"]).tolist() for d, t in groups}})


def first_accuracies(trials: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return one row per trial: its accuracy after the first tasks and the standard error of it."""
    rows = []
    for trial in trials:
        mean, error = _accuracy(trial["first"])
        about = {"distiller": trial["distiller"], "trial": trial["index"], **trial["values"]}
        rows.append(about | {"accuracy_first": mean, "error_first": error})
    return pd.DataFrame(rows)


def all_accuracies(trials: Sequence[Mapping[str, Any]], kept: str) -> pd.DataFrame:
    """Return the rows of `first_accuracies` with `accuracy` and `error` after all tasks.

    They are NaN for trials that did not go on; `best` marks one trial of each distiller.
    """
    table, went_on = first_accuracies(trials), read_json(kept)["kept"]
    found = [
        _accuracy(t["all"]) if t["index"] in went_on[t["distiller"]] else (np.nan, np.nan)
        for t in trials
    ]
    table[["accuracy", "error"]] = found
    table["best"] = table.index.isin(table.groupby("distiller")["accuracy"].idxmax())
    return table


def flat_ranges(table: pd.DataFrame, fields: Sequence[str]) -> pd.DataFrame:
    """Return how flat each hyperparameter is.

    Args:
        table: of `all_accuracies`.
        fields: columns of values.

    Returns:
        One row per distiller and field: the `best` value, and `low` and `high`, the range of the
        values of all `among` trials whose accuracy after the first tasks is within one standard
        error of the best one there.
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
    trials: Sequence[Mapping[str, Any]], budget: Mapping[str, Any], kept: str, outputs: Any
) -> None:
    """Write the overlay, the table of trials, the report and a figure of each distiller.

    Args:
        trials: of `Trials.asked`, finished as far as they went.
        budget: of `Trials.budget`.
        kept: record of `write_kept`.
        outputs: paths of `overlay`, `trials`, `text`, and `figures` in the order of distillers.
    """
    table = all_accuracies(trials, kept)
    fields = sorted({field for trial in trials for field in trial["values"]})
    ranges = flat_ranges(table, fields)
    write(table, outputs.trials)
    best = [trial["tuned"] for trial, is_best in zip(trials, table["best"], strict=True) if is_best]
    text = yaml.safe_dump({"grid": {"distillers": best}, "tune": None}, sort_keys=False)
    with replacing(outputs.overlay) as temporary:
        temporary.write_text(_HEAD.format(path=outputs.overlay) + text)
    with replacing(outputs.text) as temporary:
        temporary.write_text(_for_people(table, ranges, budget))
    for (distiller, own), output in zip(
        table.groupby("distiller", sort=False), outputs.figures, strict=True
    ):
        draw(own, ranges[ranges["distiller"] == distiller], budget, output)


@paper()
def draw(own: pd.DataFrame, ranges: pd.DataFrame, budget: Mapping[str, Any], output: str) -> None:
    """Draw the trials of one distiller against each of its hyperparameters.

    Args:
        own: its rows of `all_accuracies`.
        ranges: its rows of `flat_ranges`.
        budget: of `Trials.budget`.
        output: file to write, the suffix decides the format.
    """
    name = own["distiller"].iloc[0]
    point = look(str(name).partition("+")[0]).point
    note = (
        f"{name}: {len(own)} trials, hollow after {budget['first_tasks']} of {budget['tasks']} "
        "tasks, filled after all, the best ringed; shaded: within one standard error of the best "
        "hollow one"
    )
    fields = ranges["field"].tolist()
    figure, axes = canvas(fields, "", "accuracy on validation images (%)", note, sharey=True)
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
    save(figure, [output])


def _accuracy(results: Sequence[str]) -> tuple[float, float]:
    """Return the mean final average accuracy of runs, in percent, and its standard error.

    The error is over seeds where there are several; of one seed it is that of sampling the
    validation images, task by task.
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


def _for_people(table: pd.DataFrame, ranges: pd.DataFrame, budget: Mapping[str, Any]) -> str:
    """Return the report as Markdown."""
    best = table[table["best"]].set_index("distiller")
    lines = []
    for _, row in ranges.iterrows():
        found = best.loc[row["distiller"]]
        lines.append(
            {
                "distiller": row["distiller"],
                "hyperparameter": row["field"],
                "best": f"{row['best']:.4g}",
                "flat from": f"{row['low']:.4g}",
                "to": f"{row['high']:.4g}",
                "trials there": f"{row['among']} of {budget['trials']}",
                "accuracy": f"{found['accuracy']:.2f} ± {found['error']:.2f}",
            }
        )
    several = len(budget["seeds"]) > 1
    note = (
        f"Every distiller had the same budget: {budget['trials']} trials, points of one scrambled "
        f"Sobol sequence, that learnt {budget['first_tasks']} of {budget['tasks']} tasks; the best "
        f"{budget['kept']} learnt them all. Seeds {', '.join(map(str, budget['seeds']))}, none of "
        "the study; all accuracies are final average accuracies on validation images, on which "
        "nobody is trained, ± one standard error "
        f"({'over seeds' if several else 'of sampling the images'}). Flat is a hyperparameter from "
        "the least to the largest value, among all trials, whose accuracy after the first tasks is "
        "within one standard error of the best there. The other values of such a trial differ too, "
        "so a wide range says that the hyperparameter matters little, a narrow one may be chance."
    )
    return pd.DataFrame(lines).to_markdown(index=False, disable_numparse=True) + f"\n\n{note}\n"
