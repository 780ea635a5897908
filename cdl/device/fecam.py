"""Memory of FeCAM (Goswami et al., NeurIPS 2023): class means, with a covariance of each class.

Further tensors than in `means` are `precision [C, D (D + 1) / 2]`, the inverse of the correlations
of a class's shrunk covariance, and `deviations [C, D]`, the standard deviations of the latter. Both
give the covariance back when a class learns more. A class takes about `2 D^2` bytes: 0.08 MB at
width 192, 1.2 MB at 768, and three times as much while a student predicts.
"""

from functools import cached_property

import numpy as np

from cdl.device.belonging import unit
from cdl.device.closed import pack, unpack
from cdl.device.means import MeanMemory
from cdl.device.memory import How, Tensors
from cdl.device.sealed import check_json

_EPS = float(np.finfo(np.float32).eps)  # relative error of the features


class FecamMemory(MeanMemory, kind="fecam"):
    """Means and covariances of features of unit norm, for squared Mahalanobis distances."""

    updating = ("deviations",)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        powers = () if self.about["tukey"] is None else ("tukey",)
        check_json(self.about, dict.fromkeys(("alpha1", "alpha2", *powers), (0.0, 1e9)))
        n, width = self.tensors["weight"].shape
        square = (n, width * (width + 1) // 2)
        return super().shapes() | {"precision": square, "deviations": (n, width)}

    def features(self, tokens: np.ndarray) -> np.ndarray:
        token, power = super().features(tokens), self.about["tukey"]
        return unit(token if power is None else np.maximum(token, 0) ** power)

    def products(self, features: np.ndarray, weight: np.ndarray) -> np.ndarray:
        pairs = zip((features - mean for mean in weight), self._inverses, strict=True)
        return -np.stack([((apart @ inverse) * apart).sum(1) for apart, inverse in pairs], axis=1)

    def solved(
        self,
        new: Tensors,
        features: np.ndarray,
        weighted: np.ndarray,
        targets: np.ndarray,
        how: How,
    ) -> Tensors:
        more = targets.shape[1] - len(self.tensors["counts"])
        names = ("weight", "precision", "deviations")
        rows = {k: np.pad(np.float32(self.tensors[k]), ((0, more), (0, 0))) for k in names}
        counts = np.pad(self.tensors["counts"], (0, more))
        learnt = np.flatnonzero(targets[:, how.keep :].sum(0)) + how.keep
        for label in learnt.tolist():
            own = features[targets[:, label] > 0].astype(np.float64)
            mean, share = own.mean(0), 1 - counts[label] / new["counts"][label]
            covariance = (own - mean).T @ (own - mean) / len(own)
            if counts[label]:
                step = (mean - rows["weight"][label])[:, None]
                between = share * (1 - share) * step @ step.T
                covariance = share * covariance + (1 - share) * self._covariance(label) + between
                mean = rows["weight"][label] + share * step[:, 0]
            rows["weight"][label] = mean
            inverse, rows["deviations"][label] = self._precision(covariance)
            rows["precision"][label] = pack(inverse)
        return rows

    @cached_property
    def _inverses(self) -> np.ndarray:
        return unpack(self.tensors["precision"])

    def _precision(self, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the inverse and the deviations of `cdl.methods.fecam.precision`."""
        width, trace = len(covariance), covariance.trace()
        one, other = np.eye(width), (covariance.sum() - trace) / max(1, width * (width - 1))
        if trace / width < _EPS**2:
            return one, np.zeros(width)
        alpha1, alpha2 = self.about["alpha1"], self.about["alpha2"]
        shrunk = covariance + alpha1 * trace / width * one + alpha2 * other * (1 - one)
        deviations = np.sqrt(shrunk.diagonal())
        return _inverse(shrunk / np.outer(deviations, deviations)), deviations

    def _covariance(self, label: int) -> np.ndarray:
        """Return the covariance of a class, from what `_precision` returned for it."""
        deviations = self.tensors["deviations"][label].astype(np.float64)
        correlation = _inverse(unpack(self.tensors["precision"][label].astype(np.float64)))
        shrunk, width = correlation * np.outer(deviations, deviations), len(deviations)
        trace, one = shrunk.trace(), np.eye(width)
        variance = trace / width / (1 + self.about["alpha1"])
        other = (shrunk.sum() - trace) / max(1, width * (width - 1)) / (1 + self.about["alpha2"])
        added = self.about["alpha1"] * variance * one + self.about["alpha2"] * other * (1 - one)
        covariance: np.ndarray = shrunk - added
        return covariance


def _inverse(square: np.ndarray) -> np.ndarray:
    """Return the inverse of a symmetric matrix; directions within rounding errors become 0."""
    found: np.ndarray = np.linalg.pinv(square, rcond=_EPS, hermitian=True)
    return found
