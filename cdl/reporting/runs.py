"""Collect the results of runs into tidy tables, without opening checkpoints."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from cdl.evaluation.metrics import agreement, current, prediction_metrics
from cdl.evaluation.predictions import read_predictions
from cdl.layout import RunFiles
from cdl.methods import PROMPTS
from cdl.reporting.columns import CELL, FORMER_NAMES, IDENTITY, LINKS, TEXT
from cdl.reporting.costs import COST, cost_of, count_unmeasured, with_teachers, work_of
from cdl.reporting.costs import markdown as cost_markdown
from cdl.runtime.artifacts import (
    check_files,
    check_provenance,
    fingerprint,
    read_json,
    replacing,
    write_json,
)

NOT_RUN = "not run"
AGREEMENT = {"teacher_agreement": "run", "none_teacher_agreement": "none_run"}
METRICS = [
    "final_average_accuracy",
    "last_accuracy",
    "average_incremental_accuracy",
    "learning_accuracy",
    "backward_transfer",
    "forgetting_max",
    "forgetting_published",
    "task_incremental_accuracy",
    "calibration_error",
    "negative_log_likelihood",
    "brier_score",
    *AGREEMENT,
    "pseudo_label_accuracy",
]
SEEN = {  # columns by their names in the results
    "views_seen": "views",
    "labelled_seen": "labelled",
    "unlabelled_seen": "unlabelled",
}
NOTE = (
    "Percent and percentage points; mean ± sample standard deviation over n seeds. Final average "
    "accuracy: mean accuracy over all tasks after the last one. Forgetting: mean drop of earlier "
    "tasks from their best accuracy (Chaudhry et al., 2018). Task-incremental accuracy: accuracy "
    "among the classes of the example's own task. Calibration error: mean distance between "
    "accuracy and probability (15 bins); empty for ridge classifiers, whose outputs are not "
    "probabilities. Gain over none: over the undistilled student whose class statistics have the "
    "same labels, see the column `against` of the intervals. Gap to teacher: its accuracy minus "
    "the learner's. Protocol: hash of data, classes, views, normalisation, schedule and the "
    "learner's own weights; numbers with the same protocol are comparable; protocols.json spells "
    "it out. In brackets after a method or distiller: its variant, or the options that differ "
    "from the defaults."
)
INTERVALS = [  # of `cdl.reporting.intervals`
    f"{name}{end}"
    for name in ("accuracy", "gain", "gap", "closed")
    for end in ("", "_low", "_high")
] + ["gain_p", "gain_p_holm"]
_PAIRED = ["gain_over_none", "gap_to_teacher"]


def tables_of(
    rows: Sequence[Mapping[str, Any]],
    runs: Sequence[Mapping[str, Any]],
    costs: Sequence[Sequence[str]],
    records: Sequence[Sequence[str]] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Collect all runs into tables.

    Args:
        rows: for each run, the columns `IDENTITY` and `LINKS`, the resolved `protocol`, and the
            fingerprint of the specification (`provenance`).
        runs: content of the JSON of each run, from `read_results`.
        costs: Snakemake's benchmark files of the jobs of each run, on all its tasks.
        records: records of the artifacts of these jobs, which have the numbers of operations; None
            skips operations.

    Returns:
        results: one row per run, with all metrics in percent, the trainable parameters, and what
            the learner has seen, summed over tasks: training views, and images with a label and
            without one.
        curves: one row per run and stage, mean accuracy over the tasks seen, in percent.
        cost: one row per run, columns of `COST`.
        protocols: the resolved protocol of each hash in the results.
    """
    curves, cost, work = [], [], {}
    for i, (row, run) in enumerate(zip(rows, runs, strict=True)):
        identity = {key: row[key] for key in IDENTITY}
        for stage, line in enumerate(run["matrix"]):
            seen = line[: stage + 1]
            curves.append({**identity, "stage": stage, "accuracy": sum(seen) / len(seen)})
        work[row["run"]] = own = [] if records is None else work_of(records[i])
        cost.append({**identity, **cost_of(costs[i], own, row["n_tasks"])})
    table, protocols = results_of(rows, runs)
    return table, pd.DataFrame(curves), with_teachers(pd.DataFrame(cost), table, work), protocols


def class_tables(
    rows: Sequence[Mapping[str, Any]], runs: Sequence[Mapping[str, Any]]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return accuracy by class and confusion of tasks after the last stage of every run.

    Args:
        rows: as in `tables_of`.
        runs: contents of the results' JSON, see `complete`.

    Returns:
        classes: one row per run and class, accuracy in percent, in learning order.
        confusion: one row per run, task and task of the predicted class, with the number of images.
    """
    classes, confusion = [], []
    for row, run in zip(rows, runs, strict=True):
        identity = {key: row[key] for key in IDENTITY}
        for name, accuracy in run["per_class"].items():
            classes.append({**identity, "class": name, "accuracy": accuracy})
        for task, line in enumerate(run["task_confusion"]):
            for predicted, images in enumerate(line):
                pair = {"task": task, "predicted_task": predicted, "images": images}
                confusion.append({**identity, **pair})
    return pd.DataFrame(classes), pd.DataFrame(confusion)


def write_collected(
    rows: Sequence[Mapping[str, Any]],
    results: Sequence[str],
    costs: Sequence[Sequence[str]],
    records: Sequence[Sequence[str]],
    outputs: Any,
    files: Callable[[str], RunFiles],
) -> None:
    """Write the tables of `tables_of` and `class_tables`.

    `outputs.protocols` has the hashes of all tables except the costs, which are different in every
    computation: their hashes are in `outputs.cost_record`.

    Args:
        rows: as in `tables_of`.
        results: as in `tables_of`.
        costs: as in `tables_of`.
        records: as in `tables_of`.
        outputs: paths by the names of `cdl.layout.TableFiles.collected`.
        files: maps the folder of a run to its files; values that results of older versions lack
            are computed from the predictions.

    Raises:
        CdlError: results or predictions are damaged or belong to another run.
    """
    found = read_results(rows, results)
    runs = [run for run in complete_all(rows, found, files) if run is not None]
    table, curves, cost, protocols = tables_of(rows, runs, costs, records)
    classes, confusion = class_tables(rows, runs)
    write(table, outputs.results)
    write(curves, outputs.curves)
    write(cost, outputs.cost, "%.9g")
    write(classes, outputs.classes)
    write(confusion, outputs.confusion)
    recorded = [outputs.results, outputs.curves, outputs.classes, outputs.confusion]
    write_json(outputs.protocols, protocols, files=recorded)
    named = pd.DataFrame(
        [{"dataset": row["dataset"], **names_of(row)} for row in table.to_dict("records")]
    )
    n = count_unmeasured(costs)
    with replacing(outputs.cost_text) as temporary:
        temporary.write_text(cost_markdown(named, cost, table["final_average_accuracy"], n))
    write_json(outputs.cost_record, COST, files=[outputs.cost, outputs.cost_text])


def read_results(rows: Sequence[Mapping[str, Any]], paths: Sequence[str]) -> list[dict[str, Any]]:
    """Read the runs' JSON; raise `CdlError` if a file is damaged or belongs to another run."""
    runs = [read_json(path) for path in paths]
    for row, path, run in zip(rows, paths, runs, strict=True):
        provenance = fingerprint(run.get("learner"))
        check_provenance(path, {"learner": provenance}, {"learner": row["provenance"]})
    return runs


def complete(run: Mapping[str, Any], files: RunFiles) -> dict[str, Any]:
    """Return a run's results with all metrics, also if an older version wrote them.

    Args:
        run: content of its `results.json`.
        files: its files; predictions are read only if the results lack something.

    Raises:
        CdlError: the predictions are needed and do not match the results.
    """
    run = {**run, "metrics": current(run["metrics"])}
    if "per_class" in run:
        return run
    tasks = run["learner"]["stream"]["tasks"]
    trains = PROMPTS[run["learner"]["method"]["name"]].trains
    found = prediction_metrics(read_predictions(files), run["classes"], tasks, trains)
    return {**found, **run, "metrics": found["metrics"] | run["metrics"]}


def complete_all(
    rows: Sequence[Mapping[str, Any]],
    runs: Sequence[Mapping[str, Any] | None],
    files: Callable[[str], RunFiles],
) -> list[dict[str, Any] | None]:
    """Complete the results of all runs, and add their agreement with the teacher.

    Args:
        rows: as in `tables_of`.
        runs: content of the `results.json` of each run; None for an unfinished one.
        files: maps the folder of a run to its files.

    Raises:
        CdlError: predictions do not match the results.
    """
    finished = {row["run"] for row, run in zip(rows, runs, strict=True) if run is not None}

    @cache
    def predicted(run: str) -> pd.Series | None:
        if run not in finished:
            return None
        return read_predictions(files(run)).set_index("image")["predicted"]

    found: list[dict[str, Any] | None] = []
    for row, run in zip(rows, runs, strict=True):
        if run is None:
            found.append(None)
            continue
        whole = complete(run, files(row["run"]))
        whole["metrics"] |= _agreement(row, predicted)
        found.append(whole)
    return found


def _agreement(
    row: Mapping[str, Any], predicted: Callable[[str], pd.Series | None]
) -> dict[str, float]:
    """Return the agreement of a run, and of its undistilled student, with the teacher.

    Args:
        row: see `tables_of`.
        predicted: maps the folder of a run to its predicted classes by image, None if unfinished.
    """
    teacher, found = predicted(row["teacher_run"]), {}
    for name, link in AGREEMENT.items():
        own = predicted(row[link])
        if teacher is not None and own is not None:
            images = own.index.intersection(teacher.index)
            found[name] = agreement(own[images].to_numpy(), teacher[images].to_numpy())
    return found


def results_of(
    rows: Sequence[Mapping[str, Any]], runs: Sequence[Mapping[str, Any] | None]
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return `results` and `protocols` of `tables_of`; an unfinished run is None and gets NaN."""
    records, protocols = [], {}
    for row, run in zip(rows, runs, strict=True):
        names = [*METRICS, "trainable_parameters", *SEEN]
        numbers, short = dict.fromkeys(names, float("nan")), ""
        if run is not None:
            protocol = {**row["protocol"], "data": run["data"]}
            short = fingerprint(protocol)[:8]
            protocols[short] = protocol
            known = current(run["metrics"])
            numbers |= {name: known.get(name, float("nan")) for name in METRICS}
            numbers["trainable_parameters"] = run["trainable_parameters"]
            seen = run.get("seen", {})  # not in results of version 0.2
            numbers |= {name: seen.get(key, float("nan")) for name, key in SEEN.items()}
            if assigned := seen.get("pseudo_labels"):
                share = seen["pseudo_labels_right"] / assigned
                numbers["pseudo_label_accuracy"] = 100 * share
        identity, links = ({key: row[key] for key in keys} for keys in (IDENTITY, LINKS))
        records.append({**identity, **numbers, "protocol": short, **links})
    return pd.DataFrame(records), protocols


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


def differences(results: pd.DataFrame) -> pd.DataFrame:
    """Add `gain_over_none` and `gap_to_teacher` (teacher minus student), in points.

    Both are differences of the final average accuracies of runs with the same seed; NaN if there
    is no such run.
    """
    table = results.copy()
    accuracy = table.set_index("run")["final_average_accuracy"]
    own = table["final_average_accuracy"]
    other = table["none_run"] != table["run"]
    table["gain_over_none"] = (own - table["none_run"].map(accuracy)).where(other)
    table["gap_to_teacher"] = table["teacher_run"].map(accuracy) - own
    return table


def summarise(results: pd.DataFrame) -> pd.DataFrame:
    """Average over seeds.

    Returns:
        One row per cell, in percent and percentage points: `n` finished seeds; mean and sample
        standard deviation (NaN for one seed) of every metric, of the gain over the undistilled
        student and of the gap to the teacher (teacher minus student) in final average accuracy.
        Gain and gap are paired by seed.
    """
    table = differences(results)
    values = [*METRICS, *_PAIRED]
    groups = table.groupby(CELL, sort=False)
    summary = groups[values].agg(["mean", "std"])
    summary.columns = ["_".join(name_and_statistic) for name_and_statistic in summary.columns]
    summary.insert(0, "n", groups["final_average_accuracy"].count())
    for name in ("trainable_parameters", *SEEN):
        summary[name] = groups[name].first()
    summary["protocol"] = groups["protocol"].agg(lambda hashes: "+".join(sorted({*hashes} - {""})))
    return summary.reset_index()


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


def display_table(summary: pd.DataFrame) -> pd.DataFrame:
    """Return the summary as text with two decimals, for Markdown and LaTeX."""

    def mean_and_deviation(row: Mapping[Hashable, Any], name: str) -> str:
        if row["n"] == 0:
            return NOT_RUN
        mean, std = row[f"{name}_mean"], row[f"{name}_std"]
        if pd.isna(mean):  # the run to compare with does not exist or is not finished
            return NOT_RUN if row["teacher"] and name in _PAIRED else "-"
        return f"{mean:.2f}" if pd.isna(std) else f"{mean:.2f} ± {std:.2f}"

    lines, few = [], bool((summary["labels"] != "all").any())
    for row in summary.to_dict("records"):
        lines.append(
            {
                "dataset": row["dataset"],
                **({"labels per class": labels_shown(row)} if few else {}),
                **names_of(row),
                "final average accuracy": mean_and_deviation(row, "final_average_accuracy"),
                "forgetting": mean_and_deviation(row, "forgetting_max"),
                "task-incremental accuracy": mean_and_deviation(row, "task_incremental_accuracy"),
                "calibration error": mean_and_deviation(row, "calibration_error"),
                "gain over none": mean_and_deviation(row, "gain_over_none"),
                "gap to teacher": mean_and_deviation(row, "gap_to_teacher"),
                "parameters": f"{row['trainable_parameters']:,.0f}" if row["n"] else NOT_RUN,
                "n": row["n"],
                "protocol": row["protocol"] or NOT_RUN,
            }
        )
    return pd.DataFrame(lines)


def latex(table: pd.DataFrame, note: str, caption: str) -> str:
    """Return a table of text as LaTeX (booktabs, longtable), with the note as a comment."""
    style = table.style.hide(axis="index").format(escape="latex")
    longtable = style.format_index(escape="latex", axis="columns").to_latex(
        hrules=True,
        environment="longtable",
        multicol_align="c",
        caption=caption.replace("_", r"\_"),
    )
    return (f"% \\usepackage{{booktabs, longtable}}\n% {note}\n" + longtable).replace("±", r"$\pm$")


def write_summary(results: pd.DataFrame, csv: str | Path, md: str | Path) -> None:
    """Write the summary of results as CSV and Markdown; runs may be unfinished."""
    summary = summarise(results)
    text = display_table(summary)
    with replacing(md) as temporary:
        lines = text.to_markdown(index=False, disable_numparse=True)
        temporary.write_text(f"{lines}\n\n{NOTE}\n")
    missing = pd.DataFrame(False, summary.index, summary.columns)
    missing.loc[summary["n"] == 0, missing.columns.drop([*CELL, "n"])] = True
    for name in _PAIRED:  # no finished run to compare with
        missing[f"{name}_mean"] |= (summary["teacher"] != "") & summary[f"{name}_mean"].isna()
    if missing.any(axis=None):
        summary = summary.round(6).astype(object).mask(missing, NOT_RUN)
    write(summary, csv)
