"""A task's training images as batches of views on the device."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cdl.data.packed import Packed
from cdl.data.views import Views
from cdl.errors import CdlError
from cdl.seeds import permutation

_ORDER = 301  # purpose of the counter-based draws


@dataclass(frozen=True)
class Batches:
    """Batches of one task; calling with an epoch iterates it.

    Every epoch visits the images in an order that is a function of (seed, task, epoch), in
    whole batches: the last partial batch is dropped.

    Attributes:
        data: the training split.
        indices: `[n]` the task's images.
        labels: `[N]` positions of all labels of the split in the class order.
        views: training views.
        seed: of order and views.
        task: counted from 0.
        batch_size: images per step.
        device: where views are made.
    """

    data: Packed
    indices: Tensor
    labels: Tensor
    views: Views
    seed: int
    task: int
    batch_size: int
    device: torch.device

    def __len__(self) -> int:
        """Return the steps per epoch; raise `CdlError` if there is not one whole batch."""
        steps = len(self.indices) // self.batch_size
        if steps == 0:
            raise CdlError(
                f"training.batch_size: {self.batch_size} is more than the {len(self.indices)} "
                f"training images of task {self.task}"
            )
        return steps

    def __call__(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield views `[B, 3, size, size]` and labels `[B]` of an epoch, on the device."""
        order = self.indices[permutation((_ORDER, self.seed, self.task, epoch), len(self.indices))]
        for rows in order[: len(self) * self.batch_size].split(self.batch_size):
            pixels, sizes = (t.to(self.device) for t in self.data.batch(rows))
            views = self.views.train(pixels, sizes, rows.to(self.device), self.seed, epoch)
            yield views, self.labels[rows].to(self.device)
