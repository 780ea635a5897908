"""Files of claims name runs that their configuration makes, and pages that show them."""

import re
from functools import reduce
from pathlib import Path

import pandas as pd
import pytest
from overlays import write_stand_ins

from cdl.distillers import DISTILLERS
from cdl.methods import PROMPTS
from cdl.study.configuration import merge, read, resolve
from cdl.study.grid import Grid
from tools import claims, default_run, pages, reproducibility

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "docs" / "claims").glob("*.yaml"))
assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_claims_are_about_runs_of_their_configuration(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = claims.read(path)
    for panel in content["panels"].values():
        of = panel if "configuration" in panel else content
        parts = [*(read(ROOT / name) for name in of["configuration"]), of.get("overlay", {})]
        write_stand_ins(config := reduce(merge, parts))
        grid = Grid(resolve(config))
        folders = [Path(grid.files(run).folder).parts for run in grid.runs]
        planned = {"/".join(parts[1:5]) for parts in folders}
        for pair in panel["differences"].values():
            for learner in pair:
                cell = f"{panel['cells']}/{learner}"
                meant = [x for x in planned if x == cell or x.startswith(f"{cell}-")]
                assert len(meant) == 1, f"{cell} is {meant}"


TABLES = sorted(pages.DATA.glob("*.csv"))


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.stem)
def test_a_page_shows_the_tables_as_they_are_kept(page):
    assert pages.with_tables(page.read_text()) == page.read_text()


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_a_kept_table_names_its_origin_and_is_shown(path):
    origin = [line for line in path.read_text().splitlines() if line.startswith("# ")]
    named = {line.removeprefix("# ").partition(":")[0] for line in origin}
    assert {"study", "commit", "machine", "hours"} <= named
    assert any(f"<!--{path.name}" in page.read_text() for page in pages.PAGES)


def test_the_table_of_what_is_reproduced_counts_the_golden_cases():
    kept = [{k: v for k, v in cell.items() if v} for cell in pages.read(reproducibility.TABLE)]
    assert kept == list(reproducibility.cells()), "run python -m tools.reproducibility"
    every = [path.stem.split("__") for path in reproducibility.CASES.glob("vectors*/*__*.json")]
    without_owner = {kind for kind, name in every if not reproducibility.owners(kind, name)}
    assert without_owner == {
        *("align_loss", "align_stats", "align_trace", "metrics", "predict", "schedule"),
        *("task_incremental", "vit_forward"),
    }
    golden = {cell["name"] for cell in kept if cell["column"] in ("steps", "runs")}
    shown = re.search(r"check (\d+) and (\d+) of them", (ROOT / "README.md").read_text())
    names = golden - {"`none`"}
    counts = [len(names & {f"`{name}`" for name in some}) for some in (PROMPTS, DISTILLERS)]
    assert [*map(int, shown.groups())] == counts


def test_a_table_is_written_into_a_page_by_its_cells(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "DATA", tmp_path)
    found = [
        {"learner": "a", "column": "points", "value": "+1.5", "low": "1.0", "high": "2.0"},
        {"learner": "a", "column": "over classes", "low": "-0.1", "high": "3.0", "note": "later"},
        {"learner": "b", "column": "points", "value": "-0.5", "significant": "x"},
    ]
    pages.write(tmp_path / "mine.csv", ["study: none"], found)
    page = "Before.\n<!--mine.csv-->\nold\n<!--end-->\n<!--mine.csv points-->\n<!--end-->\n"
    assert pages.with_tables(page).splitlines() == [
        "Before.",
        "<!--mine.csv-->",
        "",
        "| learner | points | over classes |",
        "|---|---|---|",
        "| a | +1.5 (1.0 to 2.0) | -0.1 to 3.0, later |",
        "| b | **-0.5** | |",
        "",
        "<!--end-->",
        "<!--mine.csv points-->",
        "",
        "| learner | points |",
        "|---|---|",
        "| a | +1.5 (1.0 to 2.0) |",
        "| b | **-0.5** |",
        "",
        "<!--end-->",
    ]


def test_the_differences_of_the_default_run_are_from_none_in_either_order():
    names = [name for name in default_run.SHOWN.values() if name != default_run.NONE]
    folder = "results/default/cifar20/{}-vit_nano-q-vit_nano".format
    rows = []
    for number, name in enumerate([*names, "ranpac/teacher"], start=1):
        pair, sign = (folder(name), folder(default_run.NONE)), 1
        if number % 2:
            pair, sign = pair[::-1], -1
        ends = sorted(sign * (number + end) for end in (-1, 1))
        wide = sorted(sign * (number + end) for end in (-3, 2))
        rows.append([*pair, sign * number, *ends, *wide, number / 1000])
    columns = ["first", "second", "difference", "low", "high", "low_by_class", "high_by_class", "p"]
    found = default_run.over_none(pd.DataFrame(rows, columns=columns))
    assert list(found.index) == names
    for number, row in enumerate(found.itertuples(), start=1):
        assert (row.difference, row.low, row.high) == (number, number - 1, number + 1)
        assert (row.low_by_class, row.high_by_class) == (number - 3, number + 2)
    assert found["p"].iloc[0] == pytest.approx(9 / 1000)  # Holm's correction over nine


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_claims_are_on_the_page_that_they_name(path):
    (page,) = re.findall(r"docs/studies/\w+\.md", path.read_text().split("configuration:")[0])
    assert f"`{path.stem}`" in (ROOT / page).read_text()
