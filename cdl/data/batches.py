"""A task's training images as batches of views on the device."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cdl.data.labels import UNLABELLED
from cdl.data.packed import JoinedPixels, Pixels, joined, upload
from cdl.data.views import Views
from cdl.runtime.errors import CdlError
from cdl.runtime.seeds import permutation

_ORDER, _LABELLED, _UNLABELLED = 301, 302, 303  # purposes of the counter-based draws


@dataclass(frozen=True)
class Batch:
    """What one step sees, on the device.

    images: views `[B, 3, size, size]` in 0..1.
    labels: `[L]` positions in the class order, of the first `L` images; the others have none.
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

    Where all images have a label, every epoch visits them in an order that is a function of
    (seed, task, epoch), in whole batches: the last partial batch is dropped.

    Where some have none, a step takes `batch_size` images with a label and, for a student that is
    taught, `beside` without, each kind in an order of its own that begins anew when all have been
    visited. An epoch is one pass over the kind that lasts longer, also for learners that see the
    images with a label alone.

    Attributes:
        pixels: the task's images, where views are made.
        labels: `[n]` the images' positions in the class order, `UNLABELLED` where they have none.
        views: training views.
        seed: of order and views.
        task: counted from 0.
        batch_size: images with a label per step.
        beside: images without a label per step of a student that is taught.
        taught: whether this is one.
    """

    pixels: Pixels | JoinedPixels
    labels: Tensor
    views: Views
    seed: int
    task: int
    batch_size: int
    beside: int = 1
    taught: bool = False

    @property
    def indices(self) -> Tensor:
        """Indices `[n]` of the task's images in the split."""
        return self.pixels.indices

    @property
    def device(self) -> torch.device:
        """Where views are made."""
        return self.pixels.device

    def __len__(self) -> int:
        """Return the steps per epoch; raise `CdlError` if there is not one whole batch."""
        labelled, unlabelled = (len(kind) for kind in self._kinds)
        steps = labelled // self.batch_size
        if unlabelled:
            steps = max(steps, unlabelled // self.beside)
        if steps == 0:
            raise CdlError(
                f"training.batch_size: {self.batch_size} is more than the {len(self.indices)} "
                f"training images of task {self.task}"
            )
        return steps

    @property
    def images_per_step(self) -> int:
        """Images of a step, with a label and without."""
        return self.batch_size + (self.beside if self.taught and len(self._kinds[1]) else 0)

    def __call__(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch."""
        steps, (labelled, unlabelled) = len(self), self._kinds
        if not len(unlabelled):
            order = self._order(epoch)[: steps * self.batch_size]
            return self._batches(epoch, order.split(self.batch_size), self.batch_size)
        parts = [self._cycled(_LABELLED, epoch, labelled, steps * self.batch_size)]
        if self.taught:
            parts.append(self._cycled(_UNLABELLED, epoch, unlabelled, steps * self.beside))
        rows = torch.cat([part.view(steps, -1) for part in parts], dim=1)
        return self._batches(epoch, rows, self.batch_size)

    def every(self, epoch: int) -> Iterator[Batch]:
        """Yield every image once, without labels; in training's batches where all have one."""
        return self._batches(epoch, self._order(epoch).split(self.batch_size), 0)

    def _batches(self, epoch: int, steps: Iterable[Tensor], labelled: int) -> Iterator[Batch]:
        """Yield batches of images at positions, of which the first ones come with labels."""
        for positions in map(self.pixels.grouped, steps):
            parts = self.pixels.parts(positions)
            views = joined([self.views.train(*part, self.seed, epoch) for part in parts])
            here = upload(positions, self.device)
            yield Batch(views, self._labels[here[:labelled]], epoch, here)

    def _order(self, epoch: int) -> Tensor:
        return permutation((_ORDER, self.seed, self.task, epoch), len(self.indices))

    def _cycled(self, purpose: int, epoch: int, positions: Tensor, n: int) -> Tensor:
        """Return `n` of some positions, in a new order on every pass over them."""
        keys = (purpose, self.seed, self.task, epoch)
        passes = range(math.ceil(n / len(positions)))
        orders = [positions[permutation((*keys, i), len(positions))] for i in passes]
        return torch.cat(orders)[:n]

    @cached_property
    def _kinds(self) -> tuple[Tensor, Tensor]:
        """Positions of the images with and without a label."""
        known = self.labels != UNLABELLED
        return torch.nonzero(known)[:, 0], torch.nonzero(~known)[:, 0]

    @cached_property
    def _labels(self) -> Tensor:
        return self.labels.to(self.device)
