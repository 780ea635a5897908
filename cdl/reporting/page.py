"""Write all runs to one self-contained HTML page: an overview, then all details.

The main figure and the means are static HTML and need no JavaScript. The table of single runs uses
DataTables (https://datatables.net) from the package itables. Its bundle is embedded as a `data:`
module, so that the page loads nothing from the network.
"""

import base64
import json
import math
import os
from collections.abc import Hashable, Iterable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml

from cdl.distillers import DISTILLERS
from cdl.methods import PROMPTS
from cdl.reporting import label_efficiency
from cdl.reporting.columns import CELL, IDENTITY, METRICS, SEEN
from cdl.reporting.costs import COST
from cdl.reporting.deployment import on_page
from cdl.reporting.overview import compared, cost, count, panels, parameters, warnings
from cdl.reporting.style import dataset_names
from cdl.reporting.summary import differences
from cdl.reporting.tables import read
from cdl.runtime.artifacts import check_files, read_json, replacing, write_json

ASSETS = files("cdl") / "assets"
_SHOWN = [*IDENTITY, "protocol", "trainable_parameters", "parameters", *SEEN, *COST, *METRICS]
_SHOWN += ["gain_over_baseline", "gap_to_teacher"]
_SECTIONS = {  # with figures of each dataset
    "losses": {
        "title": "Training losses",
        "note": "Mean of each part of the objective over the steps of an epoch: ce is the cross-"
        "entropy, soft compares with the teacher's outputs, the others belong to a method or "
        "distiller. Lines separate the tasks; each starts with a new optimiser. Learners without "
        "gradient steps are left out.",
        "numbers": "the loss curves of the tasks have the numbers",
    },
}


def write_page(
    path: str,
    *,
    name: str,
    configuration: str,
    tables: Mapping[str, pd.DataFrame],
    protocols: Mapping[str, Any],
    shown: Mapping[str, Any],
) -> None:
    """Write the page.

    Args:
        path: the HTML file; links to the files of runs are relative to its folder.
        name: name of the configuration.
        configuration: the resolved configuration as text.
        tables: `results`, `cost` and `classes` of `cdl.reporting.runs`, and the `intervals` and
            `contrasts` of `cdl.reporting.intervals`.
        protocols: the resolved protocol of each hash in the results.
        shown: `runs`: by folder, the path of the `results` and the list `files` of descriptions
            and paths; `data`, `backbones` and `weights`: paths of records and weights by name;
            `figures`: SVG in base64 of the sections of `_SECTIONS`, by name and dataset;
            `deployment` and `efficiency`: from `on_page` of `cdl.reporting.deployment` and
            `cdl.reporting.label_efficiency`.

    Raises:
        CdlError: the results of a run are damaged.
    """
    folder = os.path.dirname(path)
    frozen = {name: parameters(file) for name, file in shown["weights"].items()}
    contents = {r: read_json(shown["runs"][r]["results"]) for r in tables["results"]["run"]}
    table = _joined(tables, frozen, contents)
    data = dataset_names(table)
    rows = table.to_dict("records")
    runs = [_run(r, contents[r["run"]], shown, folder) | {"data": data[r["dataset"]]} for r in rows]
    found = panels(table, tables["intervals"], tables["classes"], contents)
    content = {
        "name": name,
        "cell": CELL,
        "runs": runs,
        "panels": [{key: panel[key] for key in ("id", "learners")} for panel in found],
        "contrasts": contrasts_of(tables["contrasts"]),
        "protocols": protocols,
        "versions": _distinct(run["versions"] for run in runs),
        **_inputs(shown, folder),
        "configuration": configuration,
        "deployment": shown.get("deployment"),
    }
    text = _filled(
        content,
        name=name,
        panels=found,
        compared=compared(table, contents, frozen),
        warnings=warnings(table, contents),
        cost=cost(table),
        n_runs=len(table),
        efficiency=shown.get("efficiency", ()),
        figures=_sections(shown.get("figures", {}), data),
    )
    with replacing(path) as temporary:
        temporary.write_text(text)


def _inputs(shown: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """Return links to the records of data and backbones, and remarks on the data."""
    links = {
        part: {name: os.path.relpath(path, folder) for name, path in shown[part].items()}
        for part in ("data", "backbones")
    }
    return {**links, "remarks": {k: _remarks(read_json(v)) for k, v in shown["data"].items()}}


def write_page_and_configuration(
    outputs: Any, tables: Any, configuration: Mapping[str, Any], shown: Mapping[str, Any]
) -> None:
    """Write the page and the resolved configuration.

    Args:
        outputs: paths of `page`, `configuration` and the `record` with their hashes.
        tables: paths of `results`, `classes`, `intervals`, `contrasts` and `cost`, and of their
            records, `protocols`, `summary_record` and `cost_record`; with deployment or label
            efficiency, also the paths that their `on_page` reads.
        configuration: the resolved configuration.
        shown: see `write_page`.

    Raises:
        CdlError: a table does not match its record, or results are damaged.
    """
    text = yaml.safe_dump(configuration, sort_keys=False)
    with replacing(outputs.configuration) as temporary:
        temporary.write_text(text)
    write_page(
        outputs.page,
        name=configuration["name"],
        configuration=text,
        tables={
            "results": read(tables.results, tables.protocols),
            "classes": read(tables.classes, tables.protocols),
            "intervals": read(tables.intervals, tables.summary_record),
            "contrasts": read(tables.contrasts, tables.summary_record),
            "cost": read(tables.cost, tables.cost_record),
        },
        protocols=read_json(tables.protocols),
        shown={
            **shown,
            "deployment": on_page(tables),
            "efficiency": label_efficiency.on_page(tables),
            "figures": _figures(shown["figures"]),
        },
    )
    write_json(outputs.record, {}, files=[outputs.page, outputs.configuration])


def _figures(paths: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Read the figures of the page, by name and dataset; raise `CdlError` if one is damaged."""
    found: dict[str, dict[str, str]] = {}
    for name, by_dataset in paths.items():
        for dataset, (figure, record) in by_dataset.items():
            check_files(record, figure)
            svg = base64.b64encode(Path(figure).read_bytes()).decode()
            found.setdefault(name, {})[dataset] = svg
    return found


def _sections(
    figures: Mapping[str, Mapping[str, str]], data: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return the sections of `_SECTIONS` that have figures."""
    return [
        {"id": name, **text, "parts": [{"data": data[d], "svg": s} for d, s in found.items()]}
        for name, text in _SECTIONS.items()
        if (found := figures.get(name))
    ]


def _joined(
    tables: Mapping[str, pd.DataFrame],
    frozen: Mapping[str, int],
    contents: Mapping[str, Mapping[str, Any]],
) -> pd.DataFrame:
    """Add differences, cost and the number of parameters, frozen ones included, to the runs."""
    table = differences(tables["results"])
    table[list(COST)] = tables["cost"][list(COST)]
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


def _filled(content: Mapping[str, Any], **parts: Any) -> str:
    """Render the page: `parts` are variables of the template, `content` is read by the script."""

    def fixed(number: float, digits: int = 1, sign: str = "") -> str:
        return f"{number:{sign}.{digits}f}".replace("-", "−")

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"fixed": fixed, "count": count}
    learners = [cell for panel in parts["panels"] for cell in panel["learners"]]
    reached = [x for cell in learners for x in cell["accuracy"]]
    library = (files("itables") / "html" / "dt_bundle.js").read_bytes()
    return environment.from_string((ASSETS / "page.html").read_text()).render(
        style=(ASSETS / "page.css").read_text(),
        script=(ASSETS / "page.js").read_text(),
        low=max(0, 10 * math.floor(min(reached) / 10)),
        top=min(100, 10 * math.ceil(max(reached) / 10)),
        content=json.dumps(content, allow_nan=False).replace("<", "\\u003c"),
        library="data:text/javascript;base64," + base64.b64encode(library).decode(),
        **parts,
    )


def _run(
    row: Mapping[Hashable, Any],
    result: Mapping[str, Any],
    shown: Mapping[str, Any],
    folder: str,
) -> dict[str, Any]:
    """Return the content of a run on the page."""
    links = shown["runs"][row["run"]]["files"]
    return {
        "id": row["run"],
        "baseline": row["baseline_run"],
        "taught": row["teacher_run"],
        **{key: _number(row[key]) for key in _SHOWN},
        "matrix": [line[: t + 1] for t, line in enumerate(result["matrix"])],
        "test_images": result["test_images"],
        "fingerprints": {**result["data"], **result["backbones"]},
        "learner": result["learner"],
        "versions": result["versions"],
        "files": [(what, os.path.relpath(path, folder)) for what, path in links],
    }


def contrasts_of(table: pd.DataFrame) -> dict[str, Any]:
    """Return the differences between cells for the script of the page.

    Returns:
        `cells`: folders of the cells; `rows`: for each pair the positions of both cells, then
        difference, low, high, p, number of seeds and number of images.
    """
    cells = list(dict.fromkeys([*table["first"], *table["second"]]))
    position = {cell: i for i, cell in enumerate(cells)}
    rows = [
        [
            position[row["first"]],
            position[row["second"]],
            *(_number(row[name]) for name in ("difference", "low", "high", "p")),
            row["seeds"],
            row["images"],
        ]
        for row in table.to_dict("records")
    ]
    return {"cells": cells, "rows": rows}


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


def _number(value: Any) -> Any:
    """Return a value for JSON, which has no NaN, with six decimals like the CSV files."""
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 6)
    return value


def _distinct(values: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({json.dumps(value, sort_keys=True): value for value in values}.values())
