"""Files of claims name runs that their configuration makes."""

from pathlib import Path

import pytest

from cdl.cli.options import grid_of
from tools import claims

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "docs" / "claims").glob("*.yaml"))
assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_claims_are_about_runs_of_their_configuration(path):
    content = claims.read(path)
    for panel in content["panels"].values():
        names = panel.get("configuration", content["configuration"])
        grid = grid_of([ROOT / name for name in names])
        folders = [Path(grid.files(run).folder).parts for run in grid.runs]
        planned = {"/".join(parts[1:5]) for parts in folders}
        for pair in panel["differences"].values():
            for learner in pair:
                cell = f"{panel['cells']}/{learner}"
                meant = [x for x in planned if x == cell or x.startswith(f"{cell}-")]
                assert len(meant) == 1, f"{cell} is {meant}"
