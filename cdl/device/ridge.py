"""Memory for a ridge regression on random features: what `means` has, and a Gram matrix.

Further tensors are `gram` and `losses [17]`, total squared errors on validation images of all
tasks, by ridge; `weight [C, M]` is the solution.
"""

import numpy as np

from cdl.device.closed import RIDGES, best_ridge, pack, ridge_weights, squared_errors, unpack
from cdl.device.means import MeanMemory
from cdl.device.memory import How, Tensors


class RidgeMemory(MeanMemory, kind="ridge"):
    """Sums for a ridge regression."""

    fixed = ("projection", "gram", "losses")
    updating = ("gram", "losses")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        width = self.tensors["weight"].shape[-1]
        return super().shapes() | {"gram": (width * (width + 1) // 2,), "losses": (len(RIDGES),)}

    def products(self, features: np.ndarray, weight: np.ndarray) -> np.ndarray:
        found: np.ndarray = features @ weight.T
        return found

    def solved(
        self,
        new: Tensors,
        features: np.ndarray,
        weighted: np.ndarray,
        targets: np.ndarray,
        how: How,
    ) -> Tensors:
        gram = unpack(new["gram"])
        gram += weighted.T @ features
        own = squared_errors(features, targets, self.about["updates"] + 1)
        losses = new["losses"] + own
        ridge = best_ridge(own if how.ridge == "last" and own.any() else losses, gram)
        weight = ridge_weights(gram, new["sums"], ridge)
        return {"gram": pack(gram), "losses": losses, "weight": weight}
