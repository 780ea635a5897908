"""All runs on one self-contained page: a table to sort and filter, and each run in detail.

The table is DataTables (https://datatables.net), whose bundle the package itables carries. It goes
into the page as a `data:` module, so that nothing is loaded from anywhere when the page is viewed.
"""

import base64
import json
import math
import os
from collections.abc import Hashable, Iterable, Mapping
from importlib.resources import files
from string import Template
from typing import Any

import pandas as pd
import yaml

from cdl.report.tables import COST, METRICS, differences, read
from cdl.runtime.artifacts import read_json, replacing, write_json

ASSETS = files("cdl") / "assets"
_TEXT = ["dataset", "method", "student", "teacher", "kd", "variant", "role", "query", "protocol"]
_TEXT += ["teacher_method", "method_options", "kd_options"]
_NUMBERS = ["seed", "n_tasks", "trainable_parameters", *COST]
_DIFFERENCES = ["gain_over_none", "gap_to_teacher"]


def write_page(
    path: str,
    *,
    name: str,
    configuration: str,
    results: pd.DataFrame,
    cost: pd.DataFrame,
    protocols: Mapping[str, Any],
    shown: Mapping[str, Any],
) -> None:
    """Write the page.

    Args:
        path: the HTML file; links to the runs' files are relative to its folder.
        name: the configuration's name.
        configuration: its text, resolved.
        results: runs from `cdl.report.tables.collect`.
        cost: the same runs' seconds, load and memory.
        protocols: the protocol behind each hash in the results.
        shown: what it reads and links to: of `runs`, by their folder, the path of the `results`
            and all `files` with what they are; records of `data` and `backbones` by name.

    Raises:
        CdlError: a run's results cannot be read.
    """
    folder = os.path.dirname(path)
    table = differences(results)
    table[list(COST)] = cost[list(COST)]
    runs = [_run(row, shown["runs"][row["run"]], folder) for row in table.to_dict("records")]
    content = {
        "name": name,
        "runs": runs,
        "protocols": protocols,
        "versions": _distinct(run["versions"] for run in runs),
        "data": {k: os.path.relpath(v, folder) for k, v in shown["data"].items()},
        "remarks": {k: _remarks(read_json(v)) for k, v in shown["data"].items()},
        "backbones": {k: os.path.relpath(v, folder) for k, v in shown["backbones"].items()},
        "configuration": configuration,
    }
    library = (files("itables") / "html" / "dt_bundle.js").read_bytes()
    text = Template((ASSETS / "page.html").read_text()).substitute(
        name=name,
        style=(ASSETS / "page.css").read_text(),
        script=(ASSETS / "page.js").read_text(),
        content=json.dumps(content, allow_nan=False).replace("<", "\\u003c"),
        library="data:text/javascript;base64," + base64.b64encode(library).decode(),
    )
    with replacing(path) as temporary:
        temporary.write_text(text)


def write_page_and_configuration(
    outputs: Any, tables: Any, configuration: Mapping[str, Any], shown: Mapping[str, Any]
) -> None:
    """Write the page and, beside it, the resolved configuration.

    Args:
        outputs: paths of `page`, `configuration` and the `record` that vouches for them.
        tables: paths of `results` and `cost` and of their records, `protocols` and `cost_record`.
        configuration: resolved.
        shown: see `write_page`.
    """
    text = yaml.safe_dump(configuration, sort_keys=False)
    with replacing(outputs.configuration) as temporary:
        temporary.write_text(text)
    write_page(
        outputs.page,
        name=configuration["name"],
        configuration=text,
        results=read(tables.results, tables.protocols),
        cost=read(tables.cost, tables.cost_record),
        protocols=read_json(tables.protocols),
        shown=shown,
    )
    write_json(outputs.record, {}, files=[outputs.page, outputs.configuration])


def _run(row: Mapping[Hashable, Any], shown: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """Return all that the page shows of a run."""
    result = read_json(shown["results"])
    named = {key: row[key] for key in [*_TEXT, *_NUMBERS]}
    numbers = {key: row[key] for key in [*METRICS, *_DIFFERENCES]}
    return {
        "id": row["run"],
        "none": row["none_run"],
        "taught": row["teacher_run"],
        **{key: _number(value) for key, value in named.items()},
        **{key: _number(value) for key, value in numbers.items()},
        "matrix": [line[: t + 1] for t, line in enumerate(result["matrix"])],
        "test_images": result["test_images"],
        "fingerprints": {**result["data"], **result["backbones"]},
        "learner": result["learner"],
        "versions": result["versions"],
        "files": [(what, os.path.relpath(path, folder)) for what, path in shown["files"]],
    }


def _remarks(manifest: Mapping[str, Any]) -> str:
    """Return what was left out and what is doubled in packed data; nothing if nothing is."""
    skipped = ", ".join(f"{n} {kind}" for kind, n in manifest.get("skipped", {}).items())
    remarks = [f"left out as no images: {skipped}"] if skipped else []
    disputed = manifest.get("equal_pixels_under_two_labels", {}).get("images", 0)
    for n, what in (
        (manifest.get("equal_pixels_in_both_splits", 0), "copies in the other split"),
        (manifest.get("equal_pixels_in_one_split", 0), "copies in their split"),
        (disputed, "copies with another label"),
    ):
        remarks += [f"images with {what}: {n}"] if n else []
    return "; ".join(remarks)


def _number(value: Any) -> Any:
    """JSON knows no NaN; six decimals, as in the CSV."""
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 6)
    return value


def _distinct(values: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({json.dumps(value, sort_keys=True): value for value in values}.values())
