"""Write a table and a figure of the variance components of `config/studies/variance.yaml`.

    python -m tools.variance [FIGURE.svg]

The accuracies `y[o, s]` of ten class orders crossed with three starts are a two-way layout with
random effects and one observation per cell (Searle, Casella and McCulloch, *Variance Components*,
1992); those of four choices of the labelled images, in the first order, are another one. The
standard deviation of an effect is the square root of its component; a negative component counts
as 0. Intervals are those of Ting et al. (1990), which use the quantiles of the mean squares; that
of the test images is the standard error of a mean over them.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2
from scipy.stats import f as fisher

from cdl.cli.options import grid_of
from cdl.evaluation.predictions import read_predictions
from cdl.reporting.crossed import Outcomes, outcome_matrix
from cdl.runtime.errors import CdlError
from tools.lines import Line, draw

CONFIGURATION = Path("config/studies/variance.yaml")
_TAIL = 0.025  # of each side
_FIRST = "order0"  # variant whose labels are drawn again
Values = NDArray[np.float64]


class Component(NamedTuple):
    """A variance with its 95 % interval, or the standard deviations."""

    value: float
    low: float
    high: float

    @property
    def root(self) -> "Component":
        """The standard deviations, 0 for a negative variance."""
        return Component(*(float(np.sqrt(max(0.0, x))) for x in self))


def components(y: Values) -> tuple[Component, Component, Component]:
    """Return the variances of the rows, of the columns, and of what is left, in `y[rows, columns]`.

    Their expected mean squares are `left + columns * rows^2`, `left + rows * columns^2` and `left`.
    """
    n, m = y.shape
    left = y - y.mean(1, keepdims=True) - y.mean(0) + y.mean()
    degrees = (n - 1) * (m - 1)
    square = float((left**2).sum()) / degrees
    rows = m * float(y.mean(1).var(ddof=1)), n - 1
    columns = n * float(y.mean(0).var(ddof=1)), m - 1
    return (
        difference(*rows, square, degrees, m),
        difference(*columns, square, degrees, n),
        alone(square, degrees),
    )


def alone(square: float, degrees: int) -> Component:
    """Return a variance that is estimated by a mean square with some degrees of freedom."""
    ends = (degrees * square / chi2.ppf(q, degrees) for q in (1 - _TAIL, _TAIL))
    return Component(square, *(float(end) for end in ends))


def difference(upper: float, n: int, lower: float, m: int, size: int) -> Component:
    """Return `(upper - lower) / size` of two mean squares with `n` and `m` degrees of freedom."""
    value = (upper - lower) / size
    high_n, low_n = chi2.ppf(1 - _TAIL, n) / n, chi2.ppf(_TAIL, n) / n  # F with infinitely many
    high_m, low_m = chi2.ppf(1 - _TAIL, m) / m, chi2.ppf(_TAIL, m) / m
    below = _variance(upper, lower, 1 - 1 / high_n, 1 / low_m - 1, fisher.ppf(1 - _TAIL, n, m))
    above = _variance(upper, lower, 1 / low_n - 1, 1 - 1 / high_m, fisher.ppf(_TAIL, n, m))
    return Component(value, value - below / size, value + above / size)


def _variance(upper: float, lower: float, one: float, other: float, ratio: float) -> float:
    """Return the distance of an end of the interval, of which `ratio` is the F quantile."""
    mixed = ((1 - ratio) ** 2 - (one * ratio) ** 2 - other**2) / ratio
    squared = (one * upper) ** 2 + (other * lower) ** 2 + mixed * upper * lower
    return float(np.sqrt(max(0.0, squared)))


def table_of(outcomes: Mapping[tuple[str, int], Values]) -> dict[str, Component]:
    """Return the standard deviations of all effects, in points.

    Args:
        outcomes: outcomes of the test images in percent, by variant and seed.
    """
    variants = sorted({variant for variant, _ in outcomes})
    seeds = sorted({seed for _, seed in outcomes})
    orders = [name for name in variants if name.startswith("order")]
    labels = [_FIRST, *(name for name in variants if name.startswith("labels"))]
    crossed = np.array([[outcomes[name, seed].mean() for seed in seeds] for name in orders])
    drawn = np.array([[outcomes[name, seed].mean() for seed in seeds] for name in labels])
    order, start, left = components(crossed)
    image = np.mean([outcomes[name, seed] for name in orders for seed in seeds], axis=0)
    return {
        "class order": order.root,
        "labelled images": components(drawn)[0].root,
        "start": start.root,
        "order and start together": left.root,
        "test images": alone(float(image.var(ddof=1)) / len(image), len(image) - 1).root,
    }


def read(root: Path = Path()) -> dict[str, dict[tuple[str, int], Values]]:
    """Return the outcomes of the runs by learner, variant of the data set and seed.

    Raises:
        CdlError: a run is not finished.
    """
    grid = grid_of([root / CONFIGURATION])
    found: dict[str, dict[tuple[str, int], Values]] = {"none": {}, "kd": {}}
    for run in grid.runs:
        if run.role == "teacher":
            continue
        outcomes = Outcomes.of_table(read_predictions(grid.files(run)))
        variant = run.dataset.partition("+")[2]
        found[run.distiller.name][variant, run.seed] = outcome_matrix([outcomes])[0]
    found["kd minus none"] = {key: x - found["none"][key] for key, x in found["kd"].items()}
    return found


def main() -> None:
    """Print the table, and draw its figure."""
    parser = argparse.ArgumentParser(description="Compute variance components.")
    parser.add_argument("figure", nargs="?", help="an SVG file to write")
    given = parser.parse_args()
    try:
        found = {learner: table_of(outcomes) for learner, outcomes in read().items()}
    except CdlError as error:
        sys.exit(f"variance: {error}")
    print("| | " + " | ".join(found) + " |\n|---|" + "---|" * len(found))
    for effect in next(iter(found.values())):
        cells = ("{:.1f} ({:.1f} to {:.1f})".format(*table[effect]) for table in found.values())
        print(f"| {effect} | " + " | ".join(cells) + " |")
    if given.figure:
        lines = [Line(name, effect, *x) for name, t in found.items() for effect, x in t.items()]
        note = "cifar20, ten labels of each class, vit_micro to vit_nano; lines: 95 % intervals"
        draw(lines, "standard deviation (points)", note, given.figure)


if __name__ == "__main__":
    main()
