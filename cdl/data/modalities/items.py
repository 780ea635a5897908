"""The interface of views: what a modality shows of its packed items."""

from typing import Protocol

from torch import Tensor


class ItemViews(Protocol):
    """Training and test views of items.

    Items are `[B, C, H, W]` uint8, padded with zeros at the bottom and right, with `C` channels as
    packed; their valid heights and widths are `sizes [B, 2]`.
    """

    @property
    def fixed(self) -> bool:
        """Whether training views are the same in every epoch: the test views."""

    def train(self, items: Tensor, sizes: Tensor, keys: Tensor, seed: int, epoch: int) -> Tensor:
        """Return the training views of a batch, a pure function of (seed, key, epoch).

        Args:
            items: see above.
            sizes: see above.
            keys: `[B]` integers that depend on the item only, not on its index.
            seed: the run's seed.
            epoch: counted from 0.
        """

    def test(self, items: Tensor, sizes: Tensor) -> Tensor:
        """Return the deterministic test views of a batch (arguments as in `train`)."""
