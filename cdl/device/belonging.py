"""Whether an item belongs to a class that a student knows: its cosine with the class means.

The score of an item is the cosine of its features with the nearest class mean, whatever class the
heads predict: so it does not change when heads are computed again. The item is unknown if the score
is below the threshold of this nearest class: the quantile `SHARE` of the scores of the class's own
training items, each without its part in the mean.
"""

from typing import NamedTuple

import numpy as np

UNKNOWN = "unknown"  # in the place of a class
THRESHOLD = "threshold"  # tensor of a memory
SHARE = 0.05


class Score(NamedTuple):
    """The score of an item, and the threshold below which it is unknown."""

    score: float
    threshold: float

    @classmethod
    def of(cls, row: np.ndarray, threshold: float | None = None) -> "Score":
        """Return the score in a row of `nearest`, with another threshold if one is given."""
        return cls(float(row[0]), float(row[1]) if threshold is None else threshold)

    @property
    def unknown(self) -> bool:
        """Whether the item belongs to no class."""
        return self.score < self.threshold


def nearest(features: np.ndarray, means: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return score and threshold `[n, 2]` of features `[n, D]`, with means `[C, D]`."""
    cosines = unit(features) @ unit(means).T
    return np.stack([cosines.max(1), thresholds[cosines.argmax(1)]], 1)


def thresholds_after(
    before: np.ndarray,
    features: np.ndarray,
    labels: np.ndarray,
    means: np.ndarray,
    images: np.ndarray,
) -> np.ndarray:
    """Return the threshold of each class after an update, `[C]` in fp32.

    That of a class with earlier items is averaged with its former one, weighted by the numbers of
    items. One without a known score, such as a class of one item, has the mean of the others; if
    none is known, nothing is unknown.

    Args:
        before: thresholds of the classes before the update; empty for an export.
        features: of items of any classes, `[n, D]`.
        labels: their classes `[n]`.
        means: class means `[C, D]`, which include the items.
        images: number of items of each class, `[C]`, with these.
    """
    found = np.full(len(means), np.nan)
    found[: len(before)] = before
    for label in np.unique(labels):
        own = features[labels == label].astype(np.float64)
        if images[label] > 1:
            others = images[label] * means[label].astype(np.float64) - own
            cosines = unit(own) @ unit(means).T
            cosines[:, label] = (unit(own) * unit(others)).sum(1)
            now, k = np.quantile(cosines.max(1), SHARE), len(own)
            earlier = max(0.0, images[label] - k) if label < len(before) else 0.0
            found[label] = (k * now + earlier * (before[label] if earlier else 0)) / (k + earlier)
    known = found[~np.isnan(found)]
    found[np.isnan(found)] = known.mean() if len(known) else -1
    return found.clip(-1, 1).astype(np.float32)


def unit(rows: np.ndarray) -> np.ndarray:
    """Return rows with norm 1; zeros stay."""
    found: np.ndarray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return found
