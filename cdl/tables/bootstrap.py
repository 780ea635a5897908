"""How sure a number is that follows from test images and seeds: a bootstrap over both.

Learners that saw the same test images and had the same seed are compared on these very images and
seeds: every draw weighs images and seeds, and the same weights hold for all learners. Images get
the weights of the Bayesian bootstrap (Rubin, 1981), which leave no task empty. Of `n` seeds,
`n - 1` are drawn with replacement, so that the variance of the mean is unbiased (Rao and Wu, 1988);
one seed is itself in every draw, and the interval then says nothing of other seeds.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
LEVEL = 0.95
_CHUNK = 2**21  # weights held at a time


class Answers(NamedTuple):
    """A run's answers to its test images.

    Attributes:
        image: `[N]`, indices of the images in the test split.
        task: `[N]`, the task of each.
        correct: `[N]`, whether it was answered correctly.
    """

    image: NDArray[Any]
    task: NDArray[Any]
    correct: NDArray[Any]


class Interval(NamedTuple):
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


def accuracies(seeds: Sequence[Mapping[str, Answers]]) -> dict[str, NDArray[np.float64]]:
    """Return the mean task accuracy of every learner, in percent, as observed and as drawn.

    Args:
        seeds: for each seed the answers of the learners, of all the same ones.

    Returns:
        `[1 + DRAWS]` for each learner: the mean over seeds, then the same in every draw.
    """
    rng = np.random.default_rng(0)
    n = len(seeds)
    drawn = np.full((1 + DRAWS, n), 1 / n)
    if n > 1:
        chosen = rng.integers(n, size=(DRAWS, n - 1))
        drawn[1:] = np.stack([(chosen == s).mean(axis=1) for s in range(n)], axis=1)
    images = np.unique(np.concatenate([a.image for seed in seeds for a in seed.values()]))
    found = {name: np.zeros(1 + DRAWS) for name in seeds[0]}
    step = max(1, _CHUNK // len(images))
    for start in range(0, 1 + DRAWS, step):
        part = slice(start, start + step)
        weights = rng.standard_exponential((len(drawn[part]), len(images)))
        if start == 0:
            weights[0] = 1  # as observed
        for s, seed in enumerate(seeds):
            for name, answers in seed.items():
                found[name][part] += drawn[part, s] * _weighted(weights, images, answers)
    return found


def _weighted(weights: NDArray[Any], images: NDArray[Any], answers: Answers) -> NDArray[Any]:
    """Return the mean task accuracy under each row of weights, in percent."""
    tasks = np.unique(answers.task)
    member = np.zeros((len(images), len(tasks)))
    member[np.searchsorted(images, answers.image), np.searchsorted(tasks, answers.task)] = 1
    right = np.zeros(len(images))
    right[np.searchsorted(images, answers.image)] = answers.correct
    shares = (weights @ (member * right[:, None])) / (weights @ member)
    return np.asarray(100 * shares.mean(axis=1))


def interval(values: NDArray[np.float64]) -> Interval:
    """Return what was observed, which stands first, between percentiles of the draws."""
    low, high = np.quantile(values[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(values[0]), float(low), float(high))
