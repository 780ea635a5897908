"""Ridge regression and class statistics in numpy, as in `cdl.training`."""

from collections.abc import Sequence

import numpy as np

from cdl.device.draws import normal, permutation

RIDGES = tuple(10.0**e for e in range(-8, 9))
FIT_SHARE = 0.8
DIAGONAL = 1e-4  # added to the spread of a class
_ORDER, _VALIDATION, _DRAWN = 401, 402, 20  # purposes of draws; drawn rows per class


def ridge_weights(gram: np.ndarray, sums: np.ndarray, ridge: float) -> np.ndarray:
    """Return `((G + r I)^-1 Q)^T`, `[C, M]` in fp32, of `G [M, M]` and `Q [M, C]`."""
    system = gram.astype(np.float64)
    system[np.diag_indices_from(system)] += ridge
    return np.linalg.solve(system, sums.astype(np.float64)).T.astype(np.float32)


def squared_errors(features: np.ndarray, targets: np.ndarray, key: int) -> np.ndarray:
    """Return the total squared error of each of `RIDGES` on held-out rows, `[17]`.

    Four fifths of the rows, in an order drawn with `key`, are fitted and the others are held out,
    as in `cdl.training.ranpac.validation_losses`, which returns means. 0 for a single row.

    Args:
        features: `[n, M]`.
        targets: `[n, C]`.
        key: a number that differs among updates.
    """
    order, n = permutation((_ORDER, key), len(features)), int(FIT_SHARE * len(features))
    if not n:
        return np.zeros(len(RIDGES))
    features, targets = features[order].astype(np.float64), targets[order]
    fit, rest = features[:n], features[n:]
    if n < features.shape[1]:  # `(H^T H + r I)^-1 H^T = H^T (H H^T + r I)^-1`
        system, right, rest = fit @ fit.T, targets[:n], rest @ fit.T
    else:
        system, right = fit.T @ fit, fit.T @ targets[:n]
    errors = [rest @ ridge_weights(system, right, r).T - targets[n:] for r in RIDGES]
    return np.array([np.square(error).sum() for error in errors])


def best_ridge(losses: np.ndarray, gram: np.ndarray) -> float:
    """Return the ridge with the lowest loss that exceeds the rounding errors of the Gram matrix."""
    smallest = np.finfo(np.float32).eps * float(np.trace(gram))
    safe = [i for i, ridge in enumerate(RIDGES) if ridge >= smallest] or [len(RIDGES) - 1]
    return RIDGES[safe[int(losses[safe].argmin())]]


def pack(square: np.ndarray) -> np.ndarray:
    """Return the upper triangle of symmetric matrices `[..., D, D]`, row by row."""
    return np.concatenate([square[..., i, i:] for i in range(square.shape[-1])], axis=-1)


def unpack(packed: np.ndarray) -> np.ndarray:
    """Return symmetric matrices `[..., D, D]` from `pack`."""
    width, start = int(np.sqrt(2 * packed.shape[-1])), 0
    found = np.empty((*packed.shape[:-1], width, width), packed.dtype)
    for i in range(width):
        row = packed[..., start : start + width - i]
        found[..., i, i:] = row
        found[..., i:, i] = row
        start += width - i
    return found


def one_hot(labels: np.ndarray, n: int) -> np.ndarray:
    """Return targets `[len(labels), n]` in fp32."""
    found: np.ndarray = np.eye(n, dtype=np.float32)[labels]
    return found


class Statistics:
    """Mean and spread of the features of each class, as in `cdl.training.alignment`.

    mean: `[C, D]`.
    spread: `[C, D, D]` for `covariance`, `[C, D]` for `variance` and `centroid`.
    counts: images of each class, `[C]`.
    kind: see `cdl.spec.SampledAlignment`; the spread of `centroid` is biased, without the diagonal.
    """

    def __init__(self, mean: np.ndarray, spread: np.ndarray, counts: np.ndarray, kind: str) -> None:
        """Keep the arrays in fp64."""
        self.mean, self.spread = mean.astype(np.float64), spread.astype(np.float64)
        self.counts, self.kind = counts.astype(np.float64), kind
        width, biased = mean.shape[1], kind == "centroid"
        diagonal = DIAGONAL * (np.eye(width) if kind == "covariance" else np.ones(width))
        self._unbiased = 0 if biased else 1
        # what of the diagonal is in the spread, and what is added for sampling
        self._inside, self._added = (0 * diagonal, diagonal) if biased else (diagonal, 0 * diagonal)

    def added(self, features: np.ndarray, labels: np.ndarray, n: int) -> "Statistics":
        """Return the statistics of `n` classes after further features `[k, D]`."""
        more, width = n - len(self.mean), features.shape[1]
        mean = np.concatenate([self.mean, np.zeros((more, width))])
        sums = np.concatenate([self.squares(), np.zeros((more, *self.spread.shape[1:]))])
        counts = np.concatenate([self.counts, np.zeros(more)])
        for label in np.unique(labels):
            own = features[labels == label].astype(np.float64)
            k, centre = len(own), own.mean(0)
            total, step = counts[label] + k, centre - mean[label]
            between = counts[label] * k / total
            sums[label] += self._products(own - centre) + between * self._products(step[None])
            mean[label] += step * k / total
            counts[label] = total
        spread = sums / self._divisors(counts, 1) + self._inside
        return Statistics(mean, spread, counts, self.kind)

    def sampled_spread(self) -> np.ndarray:
        """Return the spread to sample from: with the diagonal.

        A class of one image gets the mean spread of the other classes.
        """
        spread = self.spread + self._added
        known = self.counts >= 2
        if known.any():
            spread[~known] = spread[known].mean(0)
        return spread

    def squares(self) -> np.ndarray:
        """Return the sums of squared deviations from the mean, without the diagonal."""
        found: np.ndarray = (self.spread - self._inside) * self._divisors(self.counts, 0)
        return found

    def even(self) -> "Statistics":
        """Return the statistics as if all classes had the mean number of images."""
        spread = self.sampled_spread() - self._added
        counts = np.full_like(self.counts, self.counts.mean())
        return Statistics(self.mean, spread, counts, self.kind)

    def gram(self) -> tuple[np.ndarray, np.ndarray]:
        """Return `G = sum_c n_c (S_c + m_c m_c^T)`, `[D, D]`, and the class sums `[D, C]`."""
        within = self.squares().sum(0)
        within = within if within.ndim == 2 else np.diag(within)
        sums = (self.counts[:, None] * self.mean).T
        return within + sums @ self.mean, sums

    def samples(self, rows: np.ndarray, each: int, keys: Sequence[int]) -> np.ndarray:
        """Return row `r` of class `r // each` for every `r` in `rows`, `[len(rows), D]`."""
        width = self.mean.shape[1]
        noise = normal(keys, rows[:, None] * width + np.arange(width))
        labels, factor = rows // each, self.factor()
        if factor.ndim == 2:
            near: np.ndarray = self.mean[labels] + noise * factor[labels]
            return near
        for label in np.unique(labels):
            own = labels == label
            noise[own] = self.mean[label] + noise[own] @ factor[label].T
        return noise

    def factor(self) -> np.ndarray:
        """Return the factors of the noise: Cholesky factors or standard deviations."""
        if not hasattr(self, "_factor"):
            spread = self.sampled_spread()
            wide = self.kind == "covariance"
            self._factor = np.linalg.cholesky(spread) if wide else np.sqrt(spread)
        return self._factor

    def ridge(self) -> np.ndarray:
        """Return the weights `[C, D]` of a ridge regression from the statistics alone.

        The ridge is chosen on rows that are drawn from all classes.
        """
        n = len(self.mean)
        rows = self.samples(np.arange(n * _DRAWN), _DRAWN, (_VALIDATION,))
        targets = one_hot(np.arange(n).repeat(_DRAWN), n)
        gram, sums = self.gram()
        losses = squared_errors(rows, targets, _VALIDATION)
        return ridge_weights(gram, sums, best_ridge(losses, gram))

    def _products(self, rows: np.ndarray) -> np.ndarray:
        wide = self.kind == "covariance"
        found: np.ndarray = rows.T @ rows if wide else np.square(rows).sum(0)
        return found

    def _divisors(self, counts: np.ndarray, smallest: int) -> np.ndarray:
        """Return what sums of squares are divided by, in the shape of the spread."""
        shape = (-1,) + (1,) * (self.spread.ndim - 1)
        found: np.ndarray = np.maximum(counts - self._unbiased, smallest).reshape(shape)
        return found
