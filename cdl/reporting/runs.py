"""Collect the results of runs into tidy tables, without opening checkpoints."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import pandas as pd

from cdl.evaluation.metrics import agreement
from cdl.evaluation.predictions import read_predictions
from cdl.layout import RunFiles
from cdl.reporting.columns import AGREEMENT, IDENTITY, LINKS, METRICS, SEEN, SHARES
from cdl.reporting.costs import COST, cost_of, count_unmeasured, with_teachers, work_of
from cdl.reporting.costs import markdown as cost_markdown
from cdl.reporting.tables import write
from cdl.runtime.artifacts import (
    check_provenance,
    fingerprint,
    read_json,
    write_json,
    write_text,
)


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
        runs: as in `tables_of`.

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
        files: maps the folder of a run to its files.

    Raises:
        CdlError: results or predictions are damaged or belong to another run.
    """
    evaluated = read_results(rows, results)
    runs = [run for run in with_agreement(rows, evaluated, files) if run is not None]
    table, curves, cost, protocols = tables_of(rows, runs, costs, records)
    classes, confusion = class_tables(rows, runs)
    write(table, outputs.results)
    write(curves, outputs.curves)
    write(cost, outputs.cost, "%.9g")
    write(classes, outputs.classes)
    write(confusion, outputs.confusion)
    recorded = [outputs.results, outputs.curves, outputs.classes, outputs.confusion]
    write_json(outputs.protocols, protocols, files=recorded)
    write_text(outputs.cost_text, cost_markdown(table, cost, count_unmeasured(costs)))
    write_json(outputs.cost_record, COST, files=[outputs.cost, outputs.cost_text])


def read_results(rows: Sequence[Mapping[str, Any]], paths: Sequence[str]) -> list[dict[str, Any]]:
    """Read the runs' JSON; raise `CdlError` if a file is damaged or belongs to another run."""
    runs = [read_json(path) for path in paths]
    for row, path, run in zip(rows, paths, runs, strict=True):
        provenance = fingerprint(run.get("learner"))
        check_provenance(path, {"learner": provenance}, {"learner": row["provenance"]})
    return runs


def with_agreement(
    rows: Sequence[Mapping[str, Any]],
    runs: Sequence[Mapping[str, Any] | None],
    files: Callable[[str], RunFiles],
) -> list[dict[str, Any] | None]:
    """Add the agreement with the teacher to the results of all runs.

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

    return [
        None if run is None else {**run, "metrics": run["metrics"] | _agreement(row, predicted)}
        for row, run in zip(rows, runs, strict=True)
    ]


def _agreement(
    row: Mapping[str, Any], predicted: Callable[[str], pd.Series | None]
) -> dict[str, float]:
    """Return the agreement of a run, and of its undistilled student, with the teacher.

    Args:
        row: see `tables_of`.
        predicted: maps the folder of a run to its predicted classes by image, None if unfinished.
    """
    teacher, shares = predicted(row["teacher_run"]), {}
    for name, link in AGREEMENT.items():
        learner = predicted(row[link])
        if teacher is not None and learner is not None:
            images = learner.index.intersection(teacher.index)
            shares[name] = agreement(learner[images].to_numpy(), teacher[images].to_numpy())
    return shares


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
            numbers |= {name: run["metrics"].get(name, float("nan")) for name in METRICS}
            numbers["trainable_parameters"] = run["trainable_parameters"]
            seen = run["seen"]
            numbers |= {name: seen.get(key, float("nan")) for name, key in SEEN.items()}
            for name, (part, whole) in SHARES.items():
                if n := seen.get(whole):
                    numbers[name] = 100 * seen[part] / n
        identity, links = ({key: row[key] for key in keys} for keys in (IDENTITY, LINKS))
        records.append({**identity, **numbers, "protocol": short, **links})
    return pd.DataFrame(records), protocols
