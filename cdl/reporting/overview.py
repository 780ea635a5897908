"""Overview of the page: what was compared, the results, their uncertainty and cost."""

import math
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.markers import MarkerStyle
from matplotlib.path import Path as Outline
from matplotlib.transforms import Affine2D
from safetensors import safe_open

from cdl.layout import record_of
from cdl.reporting.columns import CELL, ESTIMATES, FEW_SEEDS
from cdl.reporting.names import cell_name, dataset_names, labels_text, method_of, names
from cdl.reporting.panels import HeldOut, of_dataset, panels_of
from cdl.reporting.sentences import sentences
from cdl.reporting.style import look
from cdl.reporting.text import either
from cdl.reporting.text import seeds as seeds_text
from cdl.runtime.artifacts import read_json

FEW_IMAGES = 1000  # the page warns below this number, and below `FEW_SEEDS`
_FLIP = Affine2D().scale(10, -10)  # the y axis of SVG points down


def panels(
    table: pd.DataFrame,
    cells: pd.DataFrame,
    classes: pd.DataFrame,
    contents: Mapping[str, Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Return the panels of the page: one per dataset, method and pair."""
    runs, data = dict(iter(table.groupby(CELL, sort=False))), dataset_names(table)
    of_class = dict(iter(classes.groupby(CELL, sort=False)))
    shown: list[dict[str, Any]] = []
    for dataset in dict.fromkeys(cells["dataset"]):
        for panel in panels_of(of_dataset(dataset, table, cells)):
            keys = [tuple(row) for row in cells.loc[panel.rows.index, CELL].to_numpy()]
            test = HeldOut.of(contents[runs[keys[0]]["run"].iloc[0]])
            taught = panel.rows[panel.rows["teacher"] != ""]
            student = panel.rows[panel.rows["role"] == "student"].iloc[0]  # the teacher may differ
            learners = [
                _learner(row, name, runs[key])
                for row, name, key in zip(
                    panel.rows.to_dict("records"), names(panel.rows), keys, strict=True
                )
            ]
            by_class = [_by_class(of_class[key]) for key in keys]
            shown.append(
                {
                    "id": f"panel{len(shown)}",
                    "dataset": dataset,
                    "data": data[dataset],
                    "method": str(student["method"]),
                    "label": method_of(student),
                    "labels": _labels(panel.rows),
                    "pair": list(taught.iloc[0][["teacher", "backbone"]]) if len(taught) else [],
                    "chance": test.chance,
                    "images": test.images,
                    "over": either(panel.rows["over"]),
                    "learners": learners,
                    "reading": sentences(panel.rows),
                    "classes": {c: [reached[c] for reached in by_class] for c in by_class[0]},
                }
            )
    for content in shown:
        content["compares"] = any(learner["gain"] for learner in content["learners"])
    shown.sort(key=lambda content: not content["compares"])
    compares = any(content["compares"] for content in shown)
    for content in shown:
        same_data = [other for other in shown if other["dataset"] == content["dataset"]]
        apart = not content["pair"] and any(other["pair"] for other in same_data)
        content["bound"] = apart and not content["compares"]
        content["main"] = content["compares"] or not compares and not content["bound"]
        if content["bound"]:  # it has one name in all figures and tables of the page
            for learner in content["learners"]:
                if learner["name"] == "none":
                    learner["name"] = content["method"]
    for content in shown:
        content["bounds"] = _bounds(content, shown)
    return shown


def _labels(rows: pd.DataFrame) -> str:
    """Describe how many labels the teachers of a panel see; "" if their students see as many."""
    students = rows[rows["role"] == "student"]
    saw = dict.fromkeys(students.loc[students["teacher"] != "", "teacher_labels"])
    if set(saw) <= {*students["labels"]}:
        return ""
    return f"the teacher saw {either(map(labels_text, saw))}"


def _bounds(panel: Mapping[str, Any], panels: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the students of methods without distillation, for comparison with a panel."""
    return [
        learner
        for other in panels
        if panel["pair"] and other["bound"] and other["dataset"] == panel["dataset"]
        for learner in other["learners"]
        if learner["name"] == other["method"] and learner["backbone"] == panel["pair"][1]
    ]


def _by_class(classes: pd.DataFrame) -> dict[str, tuple[float, float, float]]:
    """Return mean, minimum and maximum over seeds by class, in the first seed's order."""
    spread = classes.groupby("class", sort=False)["accuracy"].agg(["mean", "min", "max"])
    return {str(row[0]): row[1:] for row in spread.itertuples(name=None)}


def _learner(row: Mapping[Hashable, Any], name: str, runs: pd.DataFrame) -> dict[str, Any]:
    """Return the content of a cell on the page: (mean, low, high), None for a missing number."""

    def numbers(key: str) -> list[float] | None:
        value, *ends = (float(row[f"{key}{end}"]) for end in ("", "_low", "_high"))
        if math.isnan(value):
            return None
        return [round(value if math.isnan(x) else x, 6) for x in (value, *ends)]

    def spread(key: str) -> list[float]:
        return [float(runs[key].mean()), float(runs[key].min()), float(runs[key].max())]

    style, folder = look(name), str(Path(runs["run"].iloc[0]).parent)
    return {
        "name": name,
        "cell": folder,
        "cell_name": cell_name(folder),
        "backbone": row["backbone"],
        "colour": style.colour,
        "marker": _outline(style.marker),
        "n": row["n"],
        **{key: numbers(key) for key in ESTIMATES},
        "p": None if math.isnan(row["gain_p_holm"]) else float(row["gain_p_holm"]),
        "not_closed": row["not_closed"],
        "seconds": spread("training_seconds"),
        "trainable": int(runs["trainable_parameters"].iloc[0]),
        "parameters": int(runs["parameters"].iloc[0]),
        "protocol": "+".join(sorted({*runs["protocol"]})),
        "runs": dict(zip(map(int, runs["seed"]), runs["run"], strict=True)),
    }


def _outline(marker: str) -> str:
    """Return a matplotlib marker as an SVG path, 10 units wide and centred at the origin."""
    style = MarkerStyle(marker)
    outline = style.get_path().transformed(style.get_transform()).transformed(_FLIP)
    letters = {Outline.MOVETO: "M", Outline.LINETO: "L", Outline.CURVE3: "Q", Outline.CURVE4: "C"}
    return "".join(
        "Z" if code == Outline.CLOSEPOLY else letters[code] + " ".join(f"{x:.2f}" for x in points)
        for points, code in outline.iter_segments(simplify=False)
    )


def parameters(weights: str) -> int:
    """Return the number of parameters of a backbone, from its record or the header of its file."""
    if (known := read_json(record_of(weights)).get("parameters")) is not None:
        return int(known)  # of an ONNX file
    with safe_open(weights, framework="numpy") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118


def count(number: float) -> str:
    """Return a number of parameters as text: 2.7 M, 61 k."""
    return f"{number / 1e6:.1f} M" if number >= 1e6 else f"{number / 1e3:.0f} k"


def _and(words: Iterable[str]) -> str:
    *first, last = dict.fromkeys(words)
    return f"{', '.join(first)} and {last}" if first else last


def compared(
    table: pd.DataFrame, contents: Mapping[str, Mapping[str, Any]], frozen: Mapping[str, int]
) -> str:
    """Describe in one sentence what was compared.

    Args:
        table: runs, from `cdl.reporting.runs.tables_of`.
        contents: content of the results' JSON by the folder of the run.
        frozen: number of parameters of each backbone by its name.
    """

    def backbone(name: str) -> str:
        if name not in frozen:  # a teacher that cdl does not train
            return f"{name} ({'a classifier' if name.startswith('classifier_') else 'a file'})"
        return f"{name} ({count(frozen[name])} frozen parameters)"

    distilled = table[table["teacher"] != ""]
    data = dataset_names(table)
    facts: dict[str, list[str]] = {}  # datasets by their facts: variants share a phrase
    for row in table.drop_duplicates("dataset").to_dict("records"):
        test = HeldOut.of(contents[row["run"]])
        fact = f"{test.classes} classes in {row['n_tasks']} tasks, {test.images:,} test examples"
        facts.setdefault(fact, []).append(data[row["dataset"]])
    datasets = _and(f"{_and(group)} ({fact})" for fact, group in facts.items())
    methods = _and(table["method"])
    if distilled.empty:
        return f"{_and(map(backbone, table['backbone']))} on {datasets} with {methods}."
    pairs = distilled[["teacher", "backbone"]].drop_duplicates().itertuples(index=False)
    taught = _and(
        f"{backbone(small)}, alone and with the teacher {backbone(big)}" for big, small in pairs
    )
    by = _and(distilled["distiller"])
    return f"{taught}, on {datasets} with {methods}; distillers: {by}."


def warnings(table: pd.DataFrame, contents: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return warnings about few seeds and few test images."""
    seeds = table.groupby(CELL)["seed"].nunique().min()
    few = f"{seeds_text(seeds)}: too few for a claim, which needs at least {FEW_SEEDS}"
    texts = [few] if seeds < FEW_SEEDS else []
    data = dataset_names(table)
    for dataset, runs in table.groupby("dataset", sort=False):
        images = HeldOut.of(contents[runs["run"].iloc[0]]).images
        if images < FEW_IMAGES:
            half = 100 * 1.96 * 0.5 / math.sqrt(images)
            texts.append(
                f"{data[str(dataset)]}: {images} test examples: ± {half:.0f} points at an accuracy "
                "of 50 %"
            )
    return texts


def cost(table: pd.DataFrame) -> str:
    """Describe the cost of all runs in one sentence."""
    parts = [f"{table['training_seconds'].sum() / 60:.1f} min of training"]
    if table["processor_seconds"].notna().all():
        parts[0] += f" ({table['processor_seconds'].sum() / 60:.1f} min of processor time)"
    for role, runs in table.groupby("role", sort=False)["training_seconds"]:
        low, high = runs.min(), runs.max()
        each = f"{low:.0f}" if f"{low:.0f}" == f"{high:.0f}" else f"{low:.0f} to {high:.0f}"
        parts.append(f"{each} s per {role}")
    if table["peak_memory_mb"].notna().any():
        parts.append(f"at most {table['peak_memory_mb'].max() / 1000:.1f} GB of memory")
    return f"{len(table)} runs: {', '.join(parts)}."
