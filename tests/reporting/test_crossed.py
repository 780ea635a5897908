"""Intervals of means over seeds and test images: against closed forms, and their coverage."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cdl.reporting.crossed import (
    OVER_BOTH,
    OVER_EXAMPLES,
    OVER_SEEDS,
    Outcomes,
    by_class,
    estimate,
    holm,
    outcome_matrix,
    paired,
    share,
    varies_over,
)


def answers(*tasks, first=0):
    """Outcomes of a run, given for each task whether each image is classified correctly."""
    owner = np.repeat(np.arange(len(tasks)), list(map(len, tasks)))
    return Outcomes(first + np.arange(owner.size), owner, np.concatenate(tasks))


def by_definition(x):
    """Variance of the mean and its degrees of freedom, written out with loops over the table."""
    n, images = x.shape
    mean, rows, columns = x.mean(), x.mean(1), x.mean(0)
    a = sum((row - mean) ** 2 for row in rows) / (n - 1) / n
    b = sum((column - mean) ** 2 for column in columns) / (images - 1) / images
    left = sum(
        (x[s, j] - rows[s] - columns[j] + mean) ** 2 for s in range(n) for j in range(images)
    )
    r = left / ((n - 1) * (images - 1)) / (n * images)
    variance = max(a + b - r, b)
    return variance, max(1, variance**2 / (a**2 / (n - 1) + b**2 / (images - 1)))


@pytest.mark.parametrize("n", [2, 5])
def test_variance_and_degrees_of_freedom_follow_the_formula(n):
    x = 100.0 * (np.random.default_rng(n).random((n, 30)) < 0.6)
    found = estimate(x)
    variance, df = by_definition(x)
    assert found == pytest.approx((x.mean(), variance, df))
    half = stats.t.ppf(0.975, df) * variance**0.5
    assert found.interval == pytest.approx((x.mean(), x.mean() - half, x.mean() + half))
    assert found.p == pytest.approx(2 * stats.t.sf(x.mean() / variance**0.5, df))


def test_the_interval_is_never_narrower_than_that_of_the_images():
    x = np.tile(100.0 * (np.arange(40) % 3 == 0), (3, 1))  # seeds that agree on every image
    assert estimate(x).variance == pytest.approx(x[0].var(ddof=1) / 40)


def test_one_seed_varies_over_images_and_unshared_images_over_seeds():
    one = answers(np.arange(10) % 2 == 0)
    alone = outcome_matrix([one])
    assert varies_over(alone) == OVER_EXAMPLES
    assert estimate(alone) == pytest.approx((50, alone.var(ddof=1) / 10, 9))
    elsewhere = answers(np.arange(10) % 5 == 0, first=100)
    seeds = outcome_matrix([one, elsewhere])
    assert varies_over(seeds) == OVER_SEEDS and seeds[:, 0] == pytest.approx([50, 20])
    assert estimate(seeds) == pytest.approx((35, np.var([50, 20], ddof=1) / 2, 1))
    assert varies_over(outcome_matrix([one, one])) == OVER_BOTH


def test_tasks_of_different_sizes_count_alike():
    run = answers(np.ones(2, bool), np.zeros(8, bool))
    assert outcome_matrix([run, run]).mean(1) == pytest.approx([50, 50])


def test_pairs_are_compared_on_common_images():
    first, second = answers(np.ones(6, bool)), answers(np.arange(4) < 1, first=2)
    shuffled = Outcomes(*(column[::-1] for column in second))
    assert paired([first], [second]).tolist() == paired([first], [shuffled]).tolist()
    assert paired([first], [second]).mean() == pytest.approx(75)


def test_equal_learners_have_no_difference():
    run = answers(np.arange(10) % 2 == 0)
    assert estimate(paired([run, run], [run, run])).interval == (0, 0, 0)
    assert estimate(paired([run, run], [run, run])).p == 1
    assert np.isnan(estimate(np.ones((3, 5))).p)  # no variance: p is not defined


def normal(n, images, mean, seed):
    """Outcomes `[n, images]` around a mean."""
    noise = np.random.default_rng(seed).normal(size=(n, images))
    return mean + noise - noise.mean()


def test_the_ends_of_a_share_have_a_p_value_of_five_percent():
    gain, gap = normal(5, 200, 1.0, 0), normal(5, 200, 2.0, 1)
    value, low, high = share(gain, gap)
    assert value == pytest.approx(50) and low < value < high
    for end in (low, high):
        at = estimate(gain - end / 100 * gap)
        assert at.p == pytest.approx(0.05, abs=1e-6)


def test_a_missing_share_has_a_reason():
    gain = normal(5, 200, 1.0, 0)
    assert "below 4" in share(gain, normal(5, 200, 0.05, 1))
    assert "not better" in share(gain, normal(5, 200, -2.0, 1))
    seeds = np.array([[9.0], [11.0]])  # nine standard errors, but t(0.975, 1) is 12.7
    assert "unbounded" in share(seeds / 2, seeds)


def test_holm_against_the_definition():
    p = [0.01, 0.04, float("nan"), 0.03, 0.5]
    assert holm(p) == pytest.approx([0.04, 0.09, float("nan"), 0.09, 0.5], nan_ok=True)
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def outcomes_of_a_population(n, images, spread, rng):
    """Outcomes of n seeds on images of different difficulty, of a learner that reaches 50 %.

    `spread`: standard deviation of the accuracy over seeds in points.
    """
    total = (0.8**2 + 0.6**2) ** 0.5
    seeds = rng.normal(size=(n, 1)) * spread / 100 * total / stats.norm.pdf(0)
    difficulty = rng.normal(size=images) * 0.8
    return 100.0 * (seeds + difficulty + 0.6 * rng.normal(size=(n, images)) > 0)


def old_bootstrap(x, rng, draws=300):
    """Return the interval of cdl 0.2: n - 1 seeds drawn, Bayesian weights of images."""
    n, images = x.shape
    drawn = rng.integers(n, size=(draws, n - 1))
    weights = np.stack([(drawn == s).mean(axis=1) for s in range(n)], axis=1)
    of_images = rng.standard_exponential((draws, images))
    of_images /= of_images.sum(axis=1, keepdims=True)
    return np.quantile(((of_images @ x.T) * weights).sum(axis=1), [0.025, 0.975])


def coverage(n, spread, interval_of, cells=400):
    """Percentage of simulated cells whose interval contains the true accuracy."""
    rng = np.random.default_rng(8)
    held = 0
    for _ in range(cells):
        low, high = interval_of(outcomes_of_a_population(n, 1000, spread, rng))
        held += low <= 50 <= high
    return 100 * held / cells


@pytest.mark.parametrize(("n", "spread"), [(2, 0.0), (2, 3.5), (5, 0.0), (5, 3.5)])
def test_coverage(n, spread):
    least = 88 if n == 2 and spread else 90
    assert coverage(n, spread, lambda x: estimate(x).interval[1:]) >= least


@pytest.mark.parametrize(("n", "spread"), [(2, 0.0), (2, 3.5), (5, 0.0), (5, 3.5)])
def test_false_alarms_of_paired_gains(n, spread):
    """Count significant differences in 400 pairs of equally good learners."""
    rng, alarms = np.random.default_rng(3), 0
    for _ in range(400):
        seeds = rng.normal(size=(2, n, 1)) * spread / 100 / stats.norm.pdf(0)
        shared = 0.8 * rng.normal(size=1000)
        first, second = seeds + shared + 0.6 * rng.normal(size=(2, n, 1000)) > 0
        alarms += estimate(100.0 * first - 100.0 * second).p < 0.05
    assert 100 * alarms / 400 <= (12 if n == 2 and spread else 10)


@pytest.mark.parametrize(("spread", "least", "most"), [(0.6, 90, 99), (3.5, 65, 89)])
def test_coverage_of_the_interval_over_classes(spread, least, most):
    """Count how often it contains the mean gain, 5 points, over classes like these, in 100 cells.

    Gains of 20 classes have a standard deviation of 5 points; `spread` moves all of a seed.
    """
    rng, held, labels = np.random.default_rng(5), 0, pd.Series(np.arange(20).repeat(50))
    image, task = np.arange(1000), np.zeros(1000, int)
    for _ in range(100):
        gains = rng.normal(5, 5, (1, 20)) + rng.normal(0, 3, (5, 20))
        gains += rng.normal(0, spread, (5, 1))
        rates = np.full((5, 20), 0.5), 0.5 + gains / 100
        outcomes = (rng.random((5, 1000)) < np.repeat(rate, 50, axis=1) for rate in rates)
        none, own = ([Outcomes(image, task, row) for row in rows] for rows in outcomes)
        low, high = by_class(own, none, labels)
        held += low <= 5 <= high
    assert least <= held <= most


def test_coverage_of_shares():
    """Count how often Fieller's interval contains the true share, 40 %, in 200 cells."""
    rng, held, given = np.random.default_rng(4), 0, 0
    for _ in range(200):
        shared, seeds = 0.8 * rng.normal(size=1000), 0.02 * rng.normal(size=(3, 5, 1))
        levels = stats.norm.ppf([[[0.4]], [[0.48]], [[0.6]]])  # none, distilled, teacher
        none, own, teacher = levels + seeds + shared + 0.6 * rng.normal(size=(3, 5, 1000)) > 0
        found = share(100.0 * own - 100.0 * none, 100.0 * teacher - 100.0 * none)
        if not isinstance(found, str):
            given += 1
            held += found.low <= 40 <= found.high
    assert given > 150 and 100 * held / given >= 90


def test_the_former_bootstrap_has_less_coverage():
    rng = np.random.default_rng(0)
    assert coverage(2, 3.5, lambda x: old_bootstrap(x, rng)) < 88
