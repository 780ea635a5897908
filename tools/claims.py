"""Write a table and a figure of the differences that a page of `docs/studies` claims.

    python -m tools.claims docs/claims/STUDY.yaml --overlay > overlay.yaml
    python -m tools.claims docs/claims/STUDY.yaml [FIGURE.svg] [--write]

They are computed from the predictions below ./results, after `cdl run` of the configuration that
the file names, with its overlay, if it has one. Holm's correction is over all differences of the
file. `--write` keeps the table in `docs/studies/data/STUDY.csv` and writes it into the pages that
show it, see `tools.pages`.
"""

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from cdl.inventory.compare import Comparison, compare
from cdl.layout import RESULTS, Layout, ResultsFolder
from cdl.reporting.crossed import holm
from cdl.reporting.text import p_value
from cdl.runtime.errors import CdlError
from tools import pages
from tools.lines import Line, draw


class Claim(NamedTuple):
    """A difference with its label, and its p value after the correction."""

    panel: str
    label: str
    found: Comparison
    p: float

    @property
    def cells(self) -> list[dict[str, str]]:
        """The cells of its row in a table, see `tools.pages`."""
        found, row = self.found, {"panel": self.panel, "difference": self.label}
        ends = [f"{end:.1f}" for end in (found.low, found.high)]
        over = [f"{end:.1f}" for end in (found.low_by_class, found.high_by_class)]
        significant = "x" if self.p < 0.05 else ""
        points = {"value": f"{found.difference:+.1f}", "low": ends[0], "high": ends[1]}
        return [
            row | {"column": "points", "significant": significant} | points,
            row | {"column": "over classes", "low": over[0], "high": over[1]},
            row | {"column": "p", "note": p_value(self.p).removeprefix("p ")},
        ]

    @property
    def line(self) -> Line:
        """The difference as a line of a figure."""
        found = self.found
        return Line(self.panel, self.label, found.difference, found.low, found.high)


def read(path: Path) -> dict[str, Any]:
    """Read a file of claims.

    Returns:
        `configuration`, the files of the study; `overlay`, values that are laid over them, if any;
        `note`, of the figure; and `panels` by title, each with the folder of its `cells` and its
        `differences`: by label, two of these cells as in `cdl compare`, of which the second one is
        subtracted. A panel of another study has a `configuration` (and `overlay`) of its own.

    Raises:
        CdlError: the file cannot be read, or lacks one of these.
    """
    try:
        content: dict[str, Any] = yaml.safe_load(path.read_text())
        panels = content["panels"].values()
        _ = content["note"], [(panel["cells"], panel["differences"]) for panel in panels]
    except (OSError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        raise CdlError(
            f"{path}: is not a file of claims ({error!r}); expected one as in docs/claims"
        ) from error
    return content


def claims(content: dict[str, Any], results: ResultsFolder) -> list[Claim]:
    """Compute the differences of a file of claims.

    Raises:
        CdlError: see `cdl.inventory.compare.compare`; or cells have different seeds.
    """
    rows = [
        (title, label, compare(f"{panel['cells']}/{one}", f"{panel['cells']}/{other}", results))
        for title, panel in content["panels"].items()
        for label, (one, other) in panel["differences"].items()
    ]
    seeds = {tuple(found.common_seeds) for *_, found in rows}
    if len(seeds) > 1:
        raise CdlError(f"the cells have different seeds {sorted(seeds)}; finish the study first")
    corrected = holm([found.p for *_, found in rows])
    return [Claim(*row, p) for row, p in zip(rows, corrected, strict=True)]


def keep(path: Path, content: dict[str, Any], cells: list[dict[str, str]]) -> None:
    """Keep the table of a file of claims, with its origin, and write it into the pages."""
    panels = content["panels"].values()
    studies = {Path(panel["cells"]).parts[0] for panel in panels}
    costs = [Path(Layout(name).report.tables.cost) for name in sorted(studies)]
    where = pages.origin(str(path), filter(Path.is_file, costs))
    pages.write(pages.DATA / f"{path.stem}.csv", where, cells)
    pages.main()


def figure(rows: list[Claim], note: str, output: str) -> None:
    """Draw the claims, one panel per title, a line per label."""
    seeds = f"points: mean over {rows[0].found.seeds} seeds, lines: 95 % intervals"
    draw([row.line for row in rows], "difference (points)", f"{note}; {seeds}", output)


def main() -> None:
    """Print the table of a file of claims, and draw its figure."""
    parser = argparse.ArgumentParser(description="Compute the differences that a page claims.")
    parser.add_argument("claims", type=Path, help="a file in docs/claims")
    parser.add_argument("figure", nargs="?", help="an SVG file to write")
    parser.add_argument("--write", action="store_true", help="keep the table, and write the pages")
    parser.add_argument("--overlay", action="store_true", help="print the overlay of the study")
    given = parser.parse_args()
    try:
        content = read(given.claims)
        if given.overlay:
            yaml.safe_dump(content.get("overlay", {}), sys.stdout, sort_keys=False)
            return
        rows = claims(content, ResultsFolder(Path(RESULTS)))
    except CdlError as error:
        sys.exit(f"claims: {error}")
    cells = [cell for row in rows for cell in row.cells]
    print(pages.table(cells))
    if given.write:
        keep(given.claims, content, cells)
    if given.figure:
        figure(rows, content["note"], given.figure)


if __name__ == "__main__":
    main()
