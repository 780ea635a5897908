"""Comparison of own results with the numbers published in the papers."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from cdl.reporting.columns import CELL, NOT_RUN
from cdl.reporting.latex import longtable
from cdl.reporting.names import distiller_of, method_of
from cdl.reporting.runs import read_results, results_of
from cdl.reporting.summary import means
from cdl.reporting.tables import write
from cdl.reporting.text import as_markdown, either
from cdl.runtime.artifacts import write_json, write_text

METRICS = {"accuracy": "final_average_accuracy", "forgetting": "forgetting_published"}
NOT_PUBLISHED, UNKNOWN = "-", "unknown"
NOTE = (
    "Percent and percentage points; ours: mean ± sample standard deviation over n finished seeds. "
    "Accuracy: mean over tasks after the last one. Forgetting: drop since a task was learnt, "
    "summed over tasks and divided by their number, as in the papers' code. Difference: ours "
    "minus published. Within 2 std: whether the difference is at most twice our standard "
    f"deviation; {UNKNOWN} with one seed. {NOT_RUN}: no finished run. {NOT_PUBLISHED}: not "
    "published in any version of the paper, nor is a teacher that uses its student's query. "
    "Paper: date of the version that states the number; no single release of the code produced "
    "all of them. Protocol: hash of data, classes, views, schedule and the learner's weights; the "
    ".json file of the same name has the full protocols."
)
_KEY = ["method", "teacher", "backbone", "distiller", "n_tasks"]


def load() -> pd.DataFrame:
    """Return the published results: 310 of the papers on CDL, and 14 anchors of the field.

    Columns: version (of the paper, year and month, or the name of an anchor's source), dataset,
    n_tasks, method, teacher (empty without one), student, kd, and accuracy and forgetting in
    percent (NaN if not stated). Anchors have source, weights, split and metric; these are empty for
    the papers on CDL.
    """
    path = str(files("cdl") / "assets" / "published.csv")
    return pd.read_csv(path, keep_default_na=False, na_values=dict.fromkeys(METRICS, [""]))


def compare(results: pd.DataFrame, dataset: str, backbones: Mapping[str, str]) -> pd.DataFrame:
    """Compare own cells with published ones.

    Args:
        results: one row per run, finished or not, from `cdl.reporting.runs.results_of`.
        dataset: the papers' name of the dataset.
        backbones: the papers' name of each backbone.

    Returns:
        One row per cell and version of the paper that has it, or a single row if none has: n
        finished of `seeds` planned; for accuracy and forgetting ours, std (NaN for one seed),
        published, difference (ours minus published) and within_2_std (yes, no, unknown), in
        percent and percentage points; the version of the paper; our protocol. Missing values are
        NaN. Variants and teachers that use another backbone's query have no published counterpart.
    """
    ours = means(results)
    ours["seeds"] = results.groupby(CELL, sort=False).size().to_numpy()
    key = ours[_KEY].assign(cell=ours.index)
    key["backbone"] = key["backbone"].map(backbones)
    key["teacher"] = key["teacher"].map({"": "", **backbones})
    own = (ours["role"] == "student") | (ours["query"] == ours["backbone"])
    key.loc[~own | (ours["variant"] != ""), "backbone"] = None
    paper = load().rename(columns={"version": "paper", "student": "backbone", "kd": "distiller"})
    about = ["dataset", "source", "weights", "split", "metric"]
    paper = paper[paper["dataset"] == dataset].drop(columns=about)
    both = key.merge(paper, on=_KEY, how="left").sort_values(["cell", "paper"])
    ours = ours.loc[both["cell"]].reset_index(drop=True)
    both = both.reset_index(drop=True)
    table = ours[["dataset"]].copy()
    table["method"] = ours.apply(method_of, axis=1)
    table["learner"], table["taught_by"] = ours["backbone"], ours["teacher"].replace("", "-")
    table["distiller"] = ours.apply(distiller_of, axis=1)
    table[["n", "seeds"]], table["paper"] = ours[["n", "seeds"]], both["paper"]
    for metric, name in METRICS.items():
        mean, std = ours[f"{name}_mean"], ours[f"{name}_std"]
        difference = mean - both[metric]
        within = (difference.abs() <= 2 * std).map({True: "yes", False: "no"})
        table[metric], table[f"{metric}_std"] = mean, std
        table[f"{metric}_published"], table[f"{metric}_difference"] = both[metric], difference
        table[f"{metric}_within_2_std"] = within.mask(std.isna(), UNKNOWN).mask(difference.isna())
    table["protocol"] = ours["protocol"]
    return table


def with_reasons(table: pd.DataFrame) -> pd.DataFrame:
    """Replace missing values in a table of `compare` by the reason: `not run`, `-`, `unknown`."""
    words = table.round(6).astype(object)
    not_run = table["n"] == 0
    words.loc[not_run, "protocol"] = NOT_RUN
    for metric in METRICS:
        compared = [f"{metric}_difference", f"{metric}_within_2_std"]
        words.loc[not_run, [metric, f"{metric}_std", *compared]] = NOT_RUN
        words.loc[table["n"] == 1, f"{metric}_std"] = UNKNOWN
        unknown = table[f"{metric}_published"].isna()
        words.loc[unknown, [f"{metric}_published", *compared]] = NOT_PUBLISHED
    return words.fillna({"paper": NOT_PUBLISHED})


def display_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of `compare` as text with two decimals and two levels of columns."""
    words = with_reasons(table).map(lambda x: f"{x:.2f}" if isinstance(x, float) else str(x))
    text = {("", name.replace("_", " ")): words[name] for name in table.columns[1:5]}
    text["", "n"] = words["n"].where(
        table["n"] == table["seeds"], words["n"] + " of " + words["seeds"]
    )
    text["", "paper"] = words["paper"]
    for metric in METRICS:
        spread = (" ± " + words[f"{metric}_std"]).where(table["n"] > 1, "")
        text[metric, "ours"] = words[metric] + spread
        for name in ("published", "difference", "within_2_std"):
            text[metric, name.replace("_", " ")] = words[f"{metric}_{name}"]
    text["", "protocol"] = words["protocol"]
    return pd.DataFrame(text)


def write_comparison(
    stem: str | Path,
    results: pd.DataFrame,
    protocols: Mapping[str, Any],
    dataset: str,
    backbones: Mapping[str, str],
) -> None:
    """Write `compare` as .csv, .md, .tex (booktabs, longtable) and .html.

    Also writes the rows of the finished runs as .runs.csv, and their protocols as .json, with the
    hashes of all files.

    Args:
        stem: path of the files without suffix.
        results: see `compare`.
        protocols: the resolved protocol of each hash.
        dataset: see `compare`.
        backbones: see `compare`.
    """
    table = compare(results, dataset, backbones)
    tasks = either(results["n_tasks"])
    title = f"{results['dataset'].iloc[0]}, {tasks} tasks, {' to '.join(backbones)}"
    text = display_table(table)
    flat = text.set_axis([" ".join(names).strip() for names in text.columns], axis=1)
    html = text.style.hide(axis="index").set_uuid("comparison")
    html.set_caption(f"{title}. {NOTE}").set_table_styles(_STYLES)
    contents = {
        ".csv": with_reasons(table).to_csv(index=False),
        ".md": f"{title}\n\n{as_markdown(flat, NOTE)}",
        ".tex": longtable(text, NOTE, title),
        ".html": html.to_html(doctype_html=True, encoding="utf-8"),
    }
    for suffix, content in contents.items():
        write_text(f"{stem}{suffix}", content)
    used = sorted({*table["protocol"]} & {*protocols})
    write(results[results["protocol"] != ""], f"{stem}.runs.csv")
    recorded = [f"{stem}{suffix}" for suffix in (*contents, ".runs.csv")]
    write_json(f"{stem}.json", {short: protocols[short] for short in used}, recorded)


def write_compared(
    rows: Sequence[Mapping[str, Any]],
    results: Sequence[str],
    published: Mapping[str, Any],
    output: str,
) -> None:
    """Write the comparison of finished runs; `output` is its Markdown file."""
    stem = Path(output).with_suffix("")
    write_comparison(stem, *results_of(rows, read_results(rows, results)), **published)


_STYLES: list[Any] = [
    {"selector": "", "props": "border-collapse: collapse; font: 14px system-ui, sans-serif"},
    {"selector": "th, td", "props": "padding: .2em .6em; text-align: left; white-space: nowrap"},
    {"selector": "tbody tr", "props": "border-top: 1px solid #8886"},
    {"selector": "caption", "props": "caption-side: bottom; text-align: left; max-width: 60em"},
]
