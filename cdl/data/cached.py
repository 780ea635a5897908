"""Cached outputs of frozen models, read by batch or by image."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cdl.data.batches import Batch
from cdl.runtime import artifacts


class CachedOutputs:
    """Values `[E, n, W]` by epoch and position, on the device of the first batch.

    Attributes:
        width: `W`.
        metadata: of the artifact.
        inputs: fingerprints of the inputs of the job that wrote the cache.
    """

    def __init__(self, path: str, **expected: Any) -> None:
        """Read a cache; raise `CdlError` if it is damaged or has other metadata."""
        tensors, self.metadata = artifacts.load(path, **expected)
        self.values = tensors["values"]
        self.width: int = self.values.shape[-1]
        self.inputs: Mapping[str, Any] = self.metadata["inputs"]

    def __call__(self, batch: Batch) -> Tensor:
        """Return a batch's values `[B, W]` in fp32."""
        return self.at(batch.epoch, batch.positions)

    def at(self, epoch: int, positions: Tensor) -> Tensor:
        """Return the values `[B, W]` of images at positions `[B]` in fp32."""
        if self.values.device != positions.device:  # once, since reading a file needs no device
            self.values = self.values.to(positions.device)
        shared = len(self.values) == 1  # one answer for the views of all epochs
        return self.values[0 if shared else epoch, positions].float()


class HeldOutQueries:
    """Queries of test images, by index in the split."""

    def __init__(self, path: str, **expected: Any) -> None:
        """Read a cache; raise `CdlError` if it is damaged or has other metadata."""
        tensors, metadata = artifacts.load(path, **expected)
        self.indices, self.values = tensors["indices"], tensors["values"]
        self.inputs: Mapping[str, Any] = metadata["inputs"]

    def __call__(self, indices: Tensor) -> Tensor:
        """Return the queries `[n, Dq]` of images in fp32, on the CPU."""
        return self.values[torch.searchsorted(self.indices, indices)].float()
