"""Write all runs to one self-contained HTML page: the comparison, then all details.

The page is static HTML with SVG figures. Its script sorts and filters tables; it computes no number
and loads nothing from the network.
"""

import math
import os
from collections.abc import Hashable, Iterator, Mapping, Sequence
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml

from cdl.distillers import DISTILLERS
from cdl.methods import PROMPTS
from cdl.reporting import label_efficiency
from cdl.reporting.best import best_cell, best_line
from cdl.reporting.columns import EFFORT, METRICS, PAIRED
from cdl.reporting.costs import COST
from cdl.reporting.deployment import on_page
from cdl.reporting.names import dataset_names, method_of, named, names, taught_by
from cdl.reporting.overview import compared, cost, count, panels, parameters, warnings
from cdl.reporting.panels import of_dataset
from cdl.reporting.style import embedded
from cdl.reporting.summary import differences
from cdl.reporting.tables import read
from cdl.reporting.text import either, number, p_value
from cdl.runtime.artifacts import read_json, write_json, write_text

ASSETS = files("cdl") / "assets"
_TEXTS = ("learner", "dataset", "method", "backbone", "teacher", "query", "seed", "protocol")
_NUMBERS = METRICS | PAIRED | EFFORT
_MAIN = ["final_average_accuracy", "forgetting_max", *PAIRED]  # of a run, always visible
_COLUMNS = [*_MAIN, "training_seconds", "processor_seconds", "trainable_parameters"]  # of all runs


def write_page(
    outputs: Any, tables: Any, configuration: Mapping[str, Any], shown: Mapping[str, Any]
) -> None:
    """Write the page and the resolved configuration.

    Args:
        outputs: paths of `page`, `configuration` and the `record` with their hashes. Links to the
            files of runs are relative to the folder of the page.
        tables: paths of `results`, `classes`, `intervals`, `contrasts` and `cost`, and of their
            records, `protocols`, `summary_record` and `cost_record`; with deployment or label
            efficiency, also the paths that their `on_page` reads.
        configuration: the resolved configuration.
        shown: `runs`: by folder, the path of the `results` and the list `files` of descriptions
            and paths; `data`, `backbones` and `weights`: paths of records and weights by name;
            `figures`: by the id of their section in `page.html` and by dataset, figure and record.

    Raises:
        CdlError: a table or figure does not match its record, or the results of a run are damaged.
    """
    folder, text = os.path.dirname(outputs.page), _yaml(configuration)
    results = read(tables.results, tables.protocols)
    cells = named(read(tables.intervals, tables.summary_record))
    frozen = {name: parameters(file) for name, file in shown["weights"].items()}
    contents = {run: read_json(shown["runs"][run]["results"]) for run in results["run"]}
    table = _joined(results, read(tables.cost, tables.cost_record), frozen, contents)
    shown_panels = panels(table, cells, read(tables.classes, tables.protocols), contents)
    contrasts = read(tables.contrasts, tables.summary_record)
    runs = _in_words(table).to_dict("records")
    page = _filled(
        name=configuration["name"],
        best=_best(results, cells, contents),
        panels=shown_panels,
        alone=_alone(shown_panels),
        compared=compared(table, contents, frozen),
        warnings=warnings(table, contents),
        cost=cost(table),
        contrasts=_contrasts(contrasts, shown_panels),
        baselines=either(cells["baseline"]),
        efficiency=label_efficiency.on_page(tables),
        figures=_figures(shown["figures"], dataset_names(table)),
        runs=[_run(row, contents[row["run"]], shown["runs"], folder) for row in runs],
        run_table=_run_table(pd.DataFrame(runs)),
        deployment=on_page(tables),
        versions=_versions(contents),
        remarks={name: _remarks(read_json(path)) for name, path in shown["data"].items()},
        protocols={short: _yaml(own) for short, own in read_json(tables.protocols).items()},
        configuration=text,
        **{
            part: {name: os.path.relpath(path, folder) for name, path in shown[part].items()}
            for part in ("data", "backbones")
        },
    )
    write_text(outputs.configuration, text)
    write_text(outputs.page, page)
    write_json(outputs.record, {}, files=[outputs.page, outputs.configuration])


def _best(
    results: pd.DataFrame, cells: pd.DataFrame, contents: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """Return the best student of each dataset as `cdl run` prints it; "" names an only dataset."""
    data, found = dataset_names(results), {}
    for dataset in dict.fromkeys(results["dataset"]):
        runs, own = (of_dataset(dataset, results, table) for table in (results, cells))
        best = best_cell(runs).iloc[0]
        if best["role"] == "student" or "student" not in {*results["role"]}:
            n_classes = len(contents[best["run"]]["classes"])
            found[data[dataset]] = best_line(runs, own, n_classes)
    return found if len(found) > 1 else dict(zip([""], found.values(), strict=True))


def _in_words(table: pd.DataFrame) -> pd.DataFrame:
    """Return runs with display names in the columns of text."""
    return table.assign(
        dataset=table["dataset"].map(dataset_names(table)),
        learner=names(table),
        method=table.apply(method_of, axis=1),
        teacher=table.apply(taught_by, axis=1),
    )


def _alone(shown: Sequence[Mapping[str, Any]]) -> list[tuple[Any, Any]]:
    """Return panels with learners that no panel shows, as they are compared with nothing."""
    if not any(panel["compares"] for panel in shown):
        return []
    apart = [panel for panel in shown if not panel["compares"] and not panel["bound"]]
    return [(panel, learner) for panel in apart for learner in panel["learners"]]


def _versions(contents: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the different sets of versions that made the runs, as text."""
    versions = (content["versions"].items() for content in contents.values())
    return list(dict.fromkeys(", ".join(f"{k} {v}" for k, v in items) for items in versions))


def _figures(
    paths: Mapping[str, Mapping[str, Any]], data: Mapping[str, str]
) -> dict[str, list[dict[str, Any]]]:
    """Read the figures of each section; raise `CdlError` if one is damaged."""
    return {
        section: [
            {"data": data[dataset], "figure": embedded(figure, record)}
            for dataset, (figure, record) in by_dataset.items()
        ]
        for section, by_dataset in paths.items()
    }


def _joined(
    results: pd.DataFrame,
    cost: pd.DataFrame,
    frozen: Mapping[str, int],
    contents: Mapping[str, Mapping[str, Any]],
) -> pd.DataFrame:
    """Add names, differences, cost and the number of all parameters to the runs."""
    table = named(differences(results))
    table[list(COST)] = cost[list(COST)]
    own = []
    for row in table.to_dict("records"):
        own.append(sum(frozen[name] for name in {row["backbone"], *_queries(row, contents)}))
    table["parameters"] = table["trainable_parameters"] + own
    return table


def _queries(
    row: Mapping[Hashable, Any], contents: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    """Yield the backbones of the queries that a prediction reads, its teacher's if it is mapped."""
    learner = contents[row["run"]]["learner"]
    if not PROMPTS[learner["method"]["name"]].needs_query:
        return
    yield row["query"]
    if row["teacher_run"] and DISTILLERS[learner["distiller"]["name"]].maps_prompts:
        yield contents[row["teacher_run"]]["learner"]["query"]


def axis_of(accuracies: Sequence[float]) -> tuple[int, int]:
    """Return the ends of an axis in percent, tens that differ, for at least one accuracy."""
    low = min(90, max(0, 10 * math.floor(min(accuracies) / 10)))
    return low, max(low + 10, min(100, 10 * math.ceil(max(accuracies) / 10)))


def _filled(**parts: Any) -> str:
    """Render the page; `parts` are variables of the template."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"number": number, "p_value": p_value, "count": count}
    reached = [
        x for panel in parts["panels"] for learner in panel["learners"] for x in learner["accuracy"]
    ]
    return environment.from_string((ASSETS / "page.html").read_text()).render(
        style=(ASSETS / "page.css").read_text(),
        script=(ASSETS / "page.js").read_text(),
        **dict(zip(("low", "top"), axis_of(reached), strict=True)),
        **parts,
    )


def _run(
    row: Mapping[Hashable, Any], result: Mapping[str, Any], shown: Mapping[str, Any], folder: str
) -> dict[str, Any]:
    """Return the details of a run."""
    pair = row["backbone"] if row["teacher"] == "-" else f"{row['teacher']} → {row['backbone']}"
    what = f"{row['learner']}: {pair}, {row['method']} on {row['dataset']}, seed {row['seed']}"
    others = {"its baseline": row["baseline_run"], "its teacher": row["teacher_run"]}
    own = {"learner": result["learner"], "fingerprints": {**result["data"], **result["backbones"]}}
    return {
        "id": row["run"],
        "title": what,
        "sub": f"query from {row['query']}",
        "links": {text: run for text, run in others.items() if run in shown and run != row["run"]},
        "protocol": row["protocol"],
        "numbers": [
            (_NUMBERS[name].heading, number(row[name], _NUMBERS[name].form))
            for name in dict.fromkeys([*_MAIN, *_NUMBERS])
        ],
        "matrix": [line[: t + 1] for t, line in enumerate(result["matrix"])],
        "test_images": result["test_images"],
        "specification": _yaml(own),
        "files": _file_lines(shown[row["run"]]["files"], folder),
    }


def _file_lines(
    described: Sequence[tuple[str, str]], folder: str
) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the files of a run in lines, one for the evaluation and one for each task."""

    def task(entry: tuple[str, str]) -> str:
        name = Path(entry[1]).parent.name
        return name if name.startswith("task") else ""

    lines = []
    for name, entries in groupby(described, task):
        title = f"task {int(name.removeprefix('task')) + 1}" if name else ""
        own = [(what.partition(" after task")[0], path) for what, path in entries]
        lines.append((title, [(what, os.path.relpath(path, folder)) for what, path in own]))
    return lines


def _run_table(table: pd.DataFrame) -> dict[str, Any]:
    """Return the table of single runs.

    Returns:
        `columns` with their `values` for a filter; `rows`; and `facts`: columns of text with only
        one value are written above the table.
    """
    texts = [name for name in _TEXTS if name == "learner" or table[name].nunique() > 1]
    facts = [f"{name} {table[name].iloc[0]}" for name in _TEXTS if name not in texts]
    columns: list[dict[str, Any]] = [
        {
            "title": name,
            "at": at,
            "number": name == "seed",
            "values": sorted({*table[name]}) if table[name].nunique() > 1 else [],
        }
        for at, name in enumerate(texts)
    ]
    columns += [{"title": _NUMBERS[n].short, "number": True, "values": []} for n in _COLUMNS]
    rows = [
        {
            "run": row["run"],
            "texts": [
                *(str(row[name]) for name in texts),
                *(number(row[name], _NUMBERS[name].form) for name in _COLUMNS),
            ],
        }
        for row in table.to_dict("records")
    ]
    return {"columns": columns, "rows": rows, "facts": [f"{len(table)} runs", *facts]}


def _contrasts(
    table: pd.DataFrame, shown_panels: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return the differences between any two cells, with the names of the cells."""
    cells = {
        learner["cell"]: (panel, learner)
        for panel in reversed(shown_panels)
        for learner in panel["learners"]
    }
    datasets = {panel["data"] for panel in shown_panels}
    pairs = {tuple(panel["pair"]) for panel in shown_panels if panel["pair"]}
    shown = {
        cell: ", ".join(
            [
                *([panel["data"]] if len(datasets) > 1 else []),
                panel["label"],
                *([learner["name"]] if learner["name"] != panel["method"] else []),
                *([learner["backbone"]] if len(pairs) > 1 else []),
            ]
        )
        for cell, (panel, learner) in cells.items()
    }
    return [
        {
            "first": shown[row["first"]],
            "second": shown[row["second"]],
            "ends": [row[name] for name in ("difference", "low", "high")],
            "p": row["p"],
            "seeds": row["seeds"],
            "images": row["images"],
            "protocols": "the same"
            if cells[row["first"]][1]["protocol"] == cells[row["second"]][1]["protocol"]
            else "differ",
        }
        for row in table.to_dict("records")
        if row["first"] in cells and row["second"] in cells
    ]


def _remarks(manifest: Mapping[str, Any]) -> str:
    """Describe skipped files and duplicate images of packed data; "" if there are none."""
    skipped = ", ".join(f"{n} {kind}" for kind, n in manifest.get("skipped", {}).items())
    remarks = [f"skipped, not images: {skipped}"] if skipped else []
    disputed = manifest.get("equal_pixels_under_two_labels", {}).get("images", 0)
    for n, what in (
        (manifest.get("equal_pixels_in_both_splits", 0), "copies in the other split"),
        (manifest.get("equal_pixels_in_one_split", 0), "copies in their split"),
        (disputed, "copies with another label"),
    ):
        remarks += [f"examples with {what}: {n}"] if n else []
    return "; ".join(remarks)


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False)
