"""A task's training images as batches of views on the device."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cdl.data.packed import Pixels, joined, upload
from cdl.data.views import Views
from cdl.runtime.errors import CdlError
from cdl.runtime.seeds import permutation

_ORDER = 301  # purpose of the counter-based draws


@dataclass(frozen=True)
class Batch:
    """What one step sees, on the device.

    images: views `[B, 3, size, size]` in 0..1.
    labels: `[B]` positions in the class order.
    epoch: counted from 0.
    positions: `[B]` the images' positions among the task's images, what caches are indexed by.
    """

    images: Tensor
    labels: Tensor
    epoch: int
    positions: Tensor


@dataclass(frozen=True)
class Batches:
    """Batches of one task; calling with an epoch iterates it.

    Every epoch visits the images in an order that is a function of (seed, task, epoch), in
    whole batches: the last partial batch is dropped.

    Attributes:
        pixels: the task's images, where views are made.
        labels: `[N]` positions of all labels of the split in the class order.
        views: training views.
        seed: of order and views.
        task: counted from 0.
        batch_size: images per step.
    """

    pixels: Pixels
    labels: Tensor
    views: Views
    seed: int
    task: int
    batch_size: int

    @property
    def indices(self) -> Tensor:
        """Indices `[n]` of the task's images in the split."""
        return self.pixels.indices

    @property
    def device(self) -> torch.device:
        """Where views are made."""
        return self.pixels.flat.device

    def __len__(self) -> int:
        """Return the steps per epoch; raise `CdlError` if there is not one whole batch."""
        steps = len(self.indices) // self.batch_size
        if steps == 0:
            raise CdlError(
                f"training.batch_size: {self.batch_size} is more than the {len(self.indices)} "
                f"training images of task {self.task}"
            )
        return steps

    def __call__(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch."""
        return self._batches(epoch, len(self) * self.batch_size)

    def every(self, epoch: int) -> Iterator[Batch]:
        """Yield the same batches and then what they leave, so that every image is seen."""
        return self._batches(epoch, len(self.indices))

    def _batches(self, epoch: int, n: int) -> Iterator[Batch]:
        order = permutation((_ORDER, self.seed, self.task, epoch), len(self.indices))
        for positions in order[:n].split(self.batch_size):
            parts = self.pixels.parts(positions)
            views = joined([self.views.train(*part, self.seed, epoch) for part in parts])
            here = upload(positions, self.device)
            yield Batch(views, self._labels[here], epoch, here)

    @cached_property
    def _labels(self) -> Tensor:
        return self.labels[self.indices].to(self.device)
