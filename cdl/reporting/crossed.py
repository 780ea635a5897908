"""Intervals of means over seeds and test images as crossed random effects.

All runs of a cell are tested on the same images, so their outcomes are a matrix `X` of n seeds
times N images. The variance of its mean is estimated from the variance components of a two-way
layout (Searle, Casella and McCulloch, *Variance Components*, 1992)::

    a = var(means of seeds) / n          b = var(means of images) / N
    r = interaction mean square / (n N), with (n - 1)(N - 1) degrees of freedom
    V = max(a + b - r, b)                df = max(1, V^2 / (a^2 / (n - 1) + b^2 / (N - 1)))

and the interval is the mean -+ t(0.975, df) sqrt(V), with the degrees of freedom of Satterthwaite
(1946). `a` and `b` both contain the interaction once, hence `- r`; the floor `b` keeps an interval
from being narrower than that of the test images alone. With one seed, only the images vary.
The difference of two learners is computed in the same way from the difference of their matrices.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import t as student_t

LEVEL = 0.95
SURE_GAP = 4.0  # standard errors: shares of a smaller gap are not reported
OVER_BOTH, OVER_EXAMPLES, OVER_SEEDS = "seeds and test examples", "test examples", "seeds"

Matrix = NDArray[np.float64]


class Outcomes(NamedTuple):
    """Outcomes of one run on its test images.

    Attributes:
        image: `[N]`, indices of the images in the test split.
        task: `[N]`, task of each image.
        correct: `[N]`, whether the prediction is correct.
    """

    image: NDArray[Any]
    task: NDArray[Any]
    correct: NDArray[Any]

    @classmethod
    def of_table(cls, predictions: pd.DataFrame) -> "Outcomes":
        """Return the outcomes in a table of predictions."""
        return cls(*(predictions[name].to_numpy() for name in cls._fields))

    def of(self, images: NDArray[Any]) -> "Outcomes":
        """Return the outcomes on some images, in the order of their indices."""
        if np.array_equal(self.image, images):
            return self
        order = np.argsort(self.image)
        rows = order[np.isin(self.image[order], images)]
        return Outcomes(self.image[rows], self.task[rows], self.correct[rows])


class Interval(NamedTuple):
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


class Estimate(NamedTuple):
    """A mean with its variance.

    Attributes:
        value: the mean.
        variance: variance of the mean; NaN if it cannot be estimated.
        df: degrees of freedom of the variance.
    """

    value: float
    variance: float
    df: float

    @property
    def interval(self) -> Interval:
        """Return the 95 % interval."""
        half = _quantile(self.df) * np.sqrt(self.variance)
        return Interval(self.value, float(self.value - half), float(self.value + half))

    @property
    def p(self) -> float:
        """Return the two-sided p value of the hypothesis that the mean is zero.

        A mean of zero without variance gives 1, any other mean without variance NaN.
        """
        if self.variance == 0:
            return 1.0 if self.value == 0 else float("nan")
        return float(2 * student_t.sf(abs(self.value) / np.sqrt(self.variance), self.df))


class Difference(NamedTuple):
    """Accuracy of one cell minus that of another, paired by seed and test image.

    Attributes:
        value: difference in percentage points.
        low: lower end of its 95 % interval.
        high: upper end of the interval.
        low_by_class: lower end of the interval over classes, see `by_class`; NaN without.
        high_by_class: upper end of that interval.
        p: two-sided p value of no difference, not corrected.
        seeds: number of seeds.
        images: number of common test images; the smallest, if seeds differ in them.
        varies_over: random effects that the interval covers, see `varies_over`.
    """

    value: float
    low: float
    high: float
    low_by_class: float
    high_by_class: float
    p: float
    seeds: int
    images: int
    varies_over: str


def outcome_matrix(runs: Sequence[Outcomes]) -> Matrix:
    """Return the outcome matrix of one cell, with one run per seed.

    Returns:
        `[n, N]`, in percent: 0 or 1 for each image, weighted so that the mean of a row is the mean
        of the run's accuracies over tasks, also if tasks differ in size. Columns are images in
        the order of their indices. For runs with different test images, which cannot be crossed:
        `[n, 1]`, their accuracies.
    """
    ordered = [run.of(np.sort(run.image)) for run in runs]
    rows = [_weighted(run) for run in ordered]
    if any(not np.array_equal(run.image, ordered[0].image) for run in ordered):
        return np.array([[row.mean()] for row in rows])
    return np.stack(rows)


def paired(first: Sequence[Outcomes], second: Sequence[Outcomes]) -> Matrix:
    """Return the outcomes of one cell minus those of another, seed by seed.

    Args:
        first: runs of a cell.
        second: runs of another cell with the same seeds, in the same order.

    Returns:
        Like `outcome_matrix`, on the test images that both have in common.
    """
    left, right = map(outcome_matrix, on_common_images(first, second))
    return left - right


def difference(
    first: Sequence[Outcomes], second: Sequence[Outcomes], classes: pd.Series | None = None
) -> Difference:
    """Return the difference of two cells, of accuracies of the same images.

    Args:
        first: runs of a cell.
        second: runs of another cell with the same seeds, in the same order.
        classes: class of each test image, by index; None skips the interval over classes.
    """
    left, right = on_common_images(first, second)
    values = paired(left, right)
    mean = estimate(values)
    ends = (np.nan, np.nan) if classes is None else by_class(left, right, classes)
    images = min(len(run.image) for run in left)
    return Difference(*mean.interval, *ends, mean.p, len(values), images, varies_over(values))


def on_common_images(*cells: Sequence[Outcomes]) -> list[list[Outcomes]]:
    """Restrict the runs of cells, seed by seed, to the test images that all cells share."""
    common = [
        reduce(np.intersect1d, (run.image for run in runs)) for runs in zip(*cells, strict=True)
    ]
    return [[run.of(i) for run, i in zip(cell, common, strict=True)] for cell in cells]


def by_class(
    first: Sequence[Outcomes], second: Sequence[Outcomes], classes: pd.Series
) -> tuple[float, float]:
    """Return the 95 % interval of the difference of two cells over classes.

    It is the t interval of the per-class differences in accuracy, each averaged over seeds, so it
    says how far the difference holds for other classes; seeds and images are not random in it.

    Args:
        first: runs of a cell.
        second: runs of another cell with the same seeds, in the same order.
        classes: class of each test image, by index.

    Returns:
        Both ends in points; NaN with fewer than two classes, or if seeds differ in test images.
    """
    sides = on_common_images(first, second)
    whole = [[run._replace(task=np.zeros_like(run.task)) for run in side] for side in sides]
    values, images = paired(*whole), np.sort(sides[0][0].image)
    if values.shape[1] != len(images):
        return np.nan, np.nan
    labels = classes.loc[images].to_numpy()
    means = [values[:, labels == label].mean() for label in np.unique(labels)]
    if len(means) < 2:
        return np.nan, np.nan
    half = _quantile(len(means) - 1) * np.std(means, ddof=1) / np.sqrt(len(means))
    return float(np.mean(means) - half), float(np.mean(means) + half)


def varies_over(values: Matrix) -> str:
    """Return the random effects that the interval of some outcomes covers."""
    if values.shape[0] == 1:
        return OVER_EXAMPLES
    return OVER_BOTH if values.shape[1] > 1 else OVER_SEEDS


def estimate(values: Matrix) -> Estimate:
    """Estimate the mean of outcomes `[n, N]` and its variance.

    With one row, the variance is over images alone; with one column, over seeds alone.
    """
    return _estimate(float(values.mean()), _components(values, values), values.shape)


def share(gain: Matrix, gap: Matrix) -> Interval | str:
    """Return the percentage of a gap that a gain closes, with its interval (Fieller, 1954).

    The interval contains every share `s` for which the mean of `gain - s gap` does not differ
    significantly from zero.

    Args:
        gain: outcomes of a distilled student minus those of the undistilled one.
        gap: outcomes of the teacher minus those of the undistilled student, on the same images.

    Returns:
        The share, or the reason why none is given: the gap is not positive or below `SURE_GAP`
        standard errors, or the interval is unbounded.
    """
    whole = estimate(gap)
    error = float(np.sqrt(whole.variance))
    if not whole.value > 0:
        return "the teacher is not better than the undistilled student"
    if not whole.value >= SURE_GAP * error:
        return f"the gap to the teacher is below {SURE_GAP:g} standard errors"
    parts = [_components(x, y) for x, y in ((gain, gain), (gain, gap), (gap, gap))]

    def excess(s: float) -> float:
        """Return the squared mean of `gain - s gap` minus its squared half-interval."""
        mixed = parts[0] - 2 * s * parts[1] + s * s * parts[2]
        mean = _estimate(float(gain.mean() - s * gap.mean()), mixed, gain.shape)
        return float(mean.value**2 - _quantile(mean.df) ** 2 * mean.variance)

    if not whole.value**2 > _quantile(whole.df) ** 2 * whole.variance:
        return "the interval of the share is unbounded with so few seeds"
    value = float(gain.mean() / gap.mean())
    ends = [_root(excess, value, step) for step in (-0.05, 0.05)]
    return Interval(100 * value, 100 * ends[0], 100 * ends[1])


def holm(p: Sequence[float]) -> list[float]:
    """Correct p values for their number (Holm, 1979); NaN stays NaN and is not counted."""
    given = np.asarray(p, dtype=float)
    order = np.argsort(given)[: int(np.isfinite(given).sum())]
    corrected, least = np.full(len(given), np.nan), 0.0
    for rank, index in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * given[index]))
        corrected[index] = least
    return [float(x) for x in corrected]


def _weighted(run: Outcomes) -> Matrix:
    tasks, which, sizes = np.unique(run.task, return_inverse=True, return_counts=True)
    weights = 100 * len(run.task) / (len(tasks) * sizes[which])
    return np.asarray(weights * run.correct, dtype=float)


def _components(x: Matrix, y: Matrix) -> NDArray[np.float64]:
    """Return `a`, `b` and `r` of the covariance of two means; 0 for an effect with one level."""
    n, images = x.shape
    a = _covariance(x.mean(1), y.mean(1)) / n
    b = _covariance(x.mean(0), y.mean(0)) / images
    if n == 1 or images == 1:
        return np.array([a, b, 0.0])
    left, right = (z - z.mean(1, keepdims=True) - z.mean(0) + z.mean() for z in (x, y))
    r = float((left * right).sum()) / ((n - 1) * (images - 1)) / (n * images)
    return np.array([a, b, r])


def _covariance(x: Matrix, y: Matrix) -> float:
    if len(x) < 2:
        return 0.0
    return float((x - x.mean()) @ (y - y.mean()) / (len(x) - 1))


def _estimate(value: float, components: NDArray[np.float64], shape: tuple[int, ...]) -> Estimate:
    n, images = shape
    a, b, r = (float(part) for part in components)
    if n == 1 and images == 1:
        return Estimate(value, float("nan"), float("nan"))
    if n == 1:
        return Estimate(value, b, images - 1)
    if images == 1:
        return Estimate(value, a, n - 1)
    variance = max(a + b - r, b)
    spread = a**2 / (n - 1) + b**2 / (images - 1)
    return Estimate(value, variance, max(1.0, variance**2 / spread) if spread > 0 else 1.0)


def _quantile(df: float) -> float:
    return float(student_t.ppf((1 + LEVEL) / 2, df))


def _root(excess: Any, start: float, step: float) -> float:
    """Find the root of `excess`, which is negative at `start`, in the direction of `step`."""
    end = start + step
    while excess(end) <= 0:
        step *= 2
        end = start + step
    return float(brentq(excess, start, end, xtol=1e-9))
