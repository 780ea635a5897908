"""Write a table and a figure of the differences that a page of `docs/studies` claims.

    python -m tools.claims docs/claims/STUDY.yaml --overlay > overlay.yaml
    python -m tools.claims docs/claims/STUDY.yaml [FIGURE.svg]

They are computed from the predictions below ./results, after `cdl run` of the configuration that
the file names, with its overlay, if it has one. Holm's correction is over all differences of the
file.
"""

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from cdl.inventory.compare import Comparison, compare, format_p
from cdl.layout import RESULTS, ResultsFolder
from cdl.reporting.crossed import holm
from cdl.runtime.errors import CdlError
from tools.lines import Line, draw


class Claim(NamedTuple):
    """A difference with its label, and its p value after the correction."""

    panel: str
    label: str
    found: Comparison
    p: float

    @property
    def points(self) -> str:
        """The difference and its interval, in points."""
        return f"{self.found.difference:+.1f} ({self.found.low:.1f} to {self.found.high:.1f})"

    @property
    def over_classes(self) -> str:
        """The interval over classes, see `cdl.reporting.crossed.by_class`."""
        return f"{self.found.low_by_class:.1f} to {self.found.high_by_class:.1f}"

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


def table(rows: list[Claim]) -> str:
    """Return the claims as a table in Markdown."""
    lines = [
        f"| {r.panel} | {r.label} | {r.points} | {r.over_classes} | {format_p(r.p)} |" for r in rows
    ]
    return "\n".join(["| | | points | over classes | p |", "|---|---|---|---|---|", *lines])


def figure(rows: list[Claim], note: str, output: str) -> None:
    """Draw the claims, one panel per title, a line per label."""
    seeds = f"points: mean over {rows[0].found.seeds} seeds, lines: 95 % intervals"
    draw([row.line for row in rows], "difference (points)", f"{note}; {seeds}", output)


def main() -> None:
    """Print the table of a file of claims, and draw its figure."""
    parser = argparse.ArgumentParser(description="Compute the differences that a page claims.")
    parser.add_argument("claims", type=Path, help="a file in docs/claims")
    parser.add_argument("figure", nargs="?", help="an SVG file to write")
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
    print(table(rows))
    if given.figure:
        figure(rows, content["note"], given.figure)


if __name__ == "__main__":
    main()
