"""Files of claims name runs that their configuration makes, and pages that show them."""

import re
from functools import reduce
from pathlib import Path

import pytest

from cdl.study.configuration import merge, read, resolve
from cdl.study.grid import Grid
from tools import claims

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "docs" / "claims").glob("*.yaml"))
assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_claims_are_about_runs_of_their_configuration(path):
    content = claims.read(path)
    for panel in content["panels"].values():
        of = panel if "configuration" in panel else content
        parts = [*(read(ROOT / name) for name in of["configuration"]), of.get("overlay", {})]
        grid = Grid(resolve(reduce(merge, parts)))
        folders = [Path(grid.files(run).folder).parts for run in grid.runs]
        planned = {"/".join(parts[1:5]) for parts in folders}
        for pair in panel["differences"].values():
            for learner in pair:
                cell = f"{panel['cells']}/{learner}"
                meant = [x for x in planned if x == cell or x.startswith(f"{cell}-")]
                assert len(meant) == 1, f"{cell} is {meant}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_claims_are_on_the_page_that_they_name(path):
    (page,) = re.findall(r"docs/studies/\w+\.md", path.read_text().split("configuration:")[0])
    assert f"`{path.stem}`" in (ROOT / page).read_text()
