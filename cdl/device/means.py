"""Memory of class means, for cosines with the features.

Its tensors are `sums [M, C]` and `counts [C]` of weighted images, `images [C]`, `weight [C, M]`,
and `projection [D, M]`, whose products with a token, if positive, are the features. `parts` are
position and factor of the token of each head: the features of several heads are side by side, and
their logits are added up. `bias [C]` is added to the logits after updates that kept earlier columns
(`How.keep`).
"""

from typing import ClassVar

import numpy as np

from cdl.device.belonging import unit
from cdl.device.closed import one_hot
from cdl.device.errors import CdlError
from cdl.device.memory import How, Memory, Tensors


class MeanMemory(Memory, kind="mean"):
    """Sums of features of each class."""

    keeps = True
    fixed: ClassVar[tuple[str, ...]] = ("projection",)
    columns = ("sums",)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        n, width = len(self.tensors["counts"]), self.tensors["weight"].shape[-1]
        found = {"sums": (width, n), "images": (n,), "weight": (n, width), "bias": (n,)}
        return {name: shape for name, shape in found.items() if name != "bias" or self._biased}

    def logits(self, tokens: np.ndarray) -> np.ndarray:
        both, parts = (self.features(tokens), self.tensors["weight"]), self._parts
        total: np.ndarray = self.tensors.get("bias", np.zeros((), np.float32))
        split = (np.split(rows, len(parts), axis=1) for rows in both)
        for (_, factor), features, weight in zip(parts, *split, strict=True):
            total = total + np.float32(factor) * self.products(features, weight)
        return total

    def products(self, features: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return the logits `[n, C]` of one head before its factor."""
        cosines: np.ndarray = unit(features) @ unit(weight).T
        return cosines

    def learn(self, tokens: np.ndarray, labels: np.ndarray, n: int, how: How) -> "MeanMemory":
        if how.head not in (None, kind := self.about["kind"]):
            raise CdlError(f"head: {how.head} is invalid; this student's is {kind}; omit head")
        new, features = dict(self.tensors), self.features(tokens)
        targets, more = one_hot(labels, n), n - len(new["counts"])
        new["images"] = np.pad(new["images"], (0, more)) + targets.sum(0)
        weights = np.ones(n, np.float32)
        if how.balance:  # a class that was learnt with one image does not count twice later
            weights = np.maximum(1, new["counts"].mean() / np.maximum(new["images"], 1))
        weighted = features * weights[labels][:, None].astype(np.float32)
        new["counts"] = np.pad(new["counts"], (0, more)) + weights * targets.sum(0)
        new["sums"] = np.pad(new["sums"], ((0, 0), (0, more))) + weighted.T @ targets
        new |= {name: new[name].astype(np.float32) for name in ("counts", "sums")}
        new |= self.solved(new, features, weighted, targets, how)
        bias = new.pop("bias", np.zeros(how.keep, np.float32))[: how.keep]
        if how.keep:
            old = self.tensors["weight"][: how.keep]
            new["weight"] = np.concatenate([old, new["weight"][how.keep :]])
            new["bias"] = np.pad(bias, (0, n - how.keep))
        return type(self)({**self.about, "updates": self.about["updates"] + 1}, new)

    def solved(
        self,
        new: Tensors,
        features: np.ndarray,
        weighted: np.ndarray,
        targets: np.ndarray,
        how: How,
    ) -> Tensors:
        """Return the weights of all classes after an update, and what else changes with them.

        Args:
            new: sums and counts after the update.
            features: of its images, `[k, M]`.
            weighted: the same times the weights of the images.
            targets: `[k, C]`.
            how: choices for the update.
        """
        return {"weight": _means(new)}

    def means(self) -> np.ndarray:
        return _means(self.tensors)

    def features(self, tokens: np.ndarray) -> np.ndarray:
        projection = self.tensors.get("projection")
        token = np.concatenate([tokens[:, position] for position, _ in self._parts], axis=1)
        return token if projection is None else np.maximum(token @ projection, 0)

    @property
    def _biased(self) -> bool:
        return "bias" in self.tensors

    @property
    def _parts(self) -> list[tuple[int, float]]:
        """Position and factor of the token of each head; earlier versions wrote one head's only."""
        found: list[tuple[int, float]] = self.about.get("parts", [(0, 1.0)])
        return found


def _means(tensors: Tensors) -> np.ndarray:
    """Return the class means `[C, M]`."""
    means: np.ndarray = (tensors["sums"] / np.maximum(tensors["counts"], 1e-12)).T
    return means
