"""Batches of views of a task's training images, on the device."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

from cdl.data.labels import UNLABELLED
from cdl.data.modalities.items import ItemViews
from cdl.data.packed import JoinedPixels, Pixels, joined, upload
from cdl.runtime.errors import CdlError
from cdl.runtime.seeds import permutation

_NEXT = 0x9E3779B1  # distance of the keys of two draws of an image
_ORDER, _LABELLED, _UNLABELLED = 301, 302, 303  # purposes of the counter-based draws


@dataclass(frozen=True)
class Batch:
    """Input of one training step, on the device.

    views: what the views of a modality return; of images `[B, 3, size, size]` in 0..1.
    labels: `[L]` positions in the class order, of the first `L` images; the rest is unlabelled.
    epoch: counted from 0.
    positions: `[B]` positions of the images among the task's images, the index into caches.
    """

    views: Tensor
    labels: Tensor
    epoch: int
    positions: Tensor


@dataclass(frozen=True)
class Batches:
    """Batches of one task; a call with an epoch yields the batches of that epoch.

    If all images have a label, every epoch visits them in an order that is a function of
    (seed, task, epoch), in whole batches: the last partial batch is dropped.

    Otherwise a step takes `batch_size` labelled images, if there are any, and, if the learner is
    taught, `unlabelled` unlabelled ones. Each kind has an order of its own, which is drawn anew
    after every pass over the kind. An epoch is one pass over the kind that takes more steps, also
    for learners that see labelled images only; images that are not used count if none is
    unlabelled.

    Attributes:
        pixels: the task's images, where views are computed.
        labels: `[n]` positions of the images in the class order, or `UNLABELLED` or `UNUSED`.
        views: training views.
        seed: of order and views.
        task: counted from 0.
        batch_size: labelled images per step.
        unlabelled: unlabelled images per step of a learner that is taught.
        taught: whether the learner has targets for unlabelled images: outputs of a teacher, or of
            the learner itself before the task.
        fresh: whether an image that is drawn several times in an epoch has a new view each time;
            its first view of an epoch is the same in either case.
    """

    pixels: Pixels | JoinedPixels
    labels: Tensor
    views: ItemViews
    seed: int
    task: int
    batch_size: int
    unlabelled: int = 1
    taught: bool = False
    fresh: bool = False

    @property
    def indices(self) -> Tensor:
        """Indices `[n]` of the task's images in the split."""
        return self.pixels.indices

    @property
    def device(self) -> torch.device:
        """Device on which views are computed."""
        return self.pixels.device

    def __len__(self) -> int:
        """Return the steps per epoch; raise `CdlError` if there is no whole batch."""
        n_labelled, n_unlabelled = (len(kind) for kind in self._kinds)
        steps = n_labelled // self.batch_size
        n_others = n_unlabelled or len(self.labels) - n_labelled
        if n_others:
            steps = max(steps, n_others // self.unlabelled)
        if steps == 0:
            raise CdlError(
                f"training.batch_size: {self.batch_size} is more than the {len(self.indices)} "
                f"training examples of task {self.task + 1}"
            )
        return steps

    @property
    def images_per_step(self) -> int:
        """Labelled and unlabelled images per step."""
        return self._labelled_per_step + self._unlabelled_per_step

    @property
    def _labelled_per_step(self) -> int:
        return self.batch_size if len(self._kinds[0]) else 0

    @property
    def _unlabelled_per_step(self) -> int:
        return self.unlabelled if self.taught and len(self._kinds[1]) else 0

    def __call__(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch."""
        steps, (labelled, unlabelled) = len(self), self._kinds
        if len(labelled) == len(self.labels):
            order = self._order(epoch)[: steps * self.batch_size]
            return self._batches(epoch, order.split(self.batch_size), self.batch_size)
        parts = [
            self._cycled(purpose, epoch, kind, steps * n).view(steps, n)
            for purpose, kind, n in (
                (_LABELLED, labelled, self._labelled_per_step),
                (_UNLABELLED, unlabelled, self._unlabelled_per_step),
            )
            if n
        ]
        return self._batches(epoch, torch.cat(parts, dim=1), self._labelled_per_step)

    def all_images(self, epoch: int) -> Iterator[Batch]:
        """Yield every image once, without labels.

        If all images have a label, the batches are those of training and the partial one.
        """
        return self._batches(epoch, self._order(epoch).split(self.batch_size), 0)

    def _batches(self, epoch: int, steps: Iterable[Tensor], labelled: int) -> Iterator[Batch]:
        """Yield a batch per step, with the labels of its first `labelled` images."""
        rows = [self.pixels.grouped(positions) for positions in steps]
        draws = occurrences(torch.cat(rows)) if self.fresh else None
        starts = accumulate((len(row) for row in rows), initial=0)
        for positions, start in zip(rows, starts, strict=False):
            own = None if draws is None else draws[start : start + len(positions)]
            here = upload(positions, self.device)
            views = self._views(positions, own, epoch)
            yield Batch(views, self._labels[here[:labelled]], epoch, here)

    def _views(self, positions: Tensor, draws: Tensor | None, epoch: int) -> Tensor:
        """Return the views of images, given how often each was drawn before in the epoch."""
        views: list[Tensor] = []
        done = 0
        for images, sizes, keys in self.pixels.parts(positions):
            if draws is not None:  # a view is a function of a key, so another key is another view
                keys = keys + _NEXT * upload(draws[done : done + len(keys)], keys.device)
            views.append(self.views.train(images, sizes, keys, self.seed, epoch))
            done += len(keys)
        return joined(views)

    def _order(self, epoch: int) -> Tensor:
        return permutation((_ORDER, self.seed, self.task, epoch), len(self.indices))

    def _cycled(self, purpose: int, epoch: int, positions: Tensor, n: int) -> Tensor:
        """Return `n` positions from repeated passes over some, each pass in a new order."""
        keys = (purpose, self.seed, self.task, epoch)
        passes = range(math.ceil(n / len(positions)))
        orders = [positions[permutation((*keys, i), len(positions))] for i in passes]
        return torch.cat(orders)[:n]

    @cached_property
    def _kinds(self) -> tuple[Tensor, Tensor]:
        """Positions of the labelled and of the unlabelled images."""
        known, unknown = self.labels >= 0, self.labels == UNLABELLED
        return torch.nonzero(known)[:, 0], torch.nonzero(unknown)[:, 0]

    @cached_property
    def _labels(self) -> Tensor:
        return self.labels.to(self.device)


def occurrences(values: Tensor) -> Tensor:
    """Return how often each of some non-negative integers `[n]` occurs before its place."""
    order, counts = torch.argsort(values, stable=True), torch.bincount(values)
    first = counts.cumsum(0) - counts
    found = torch.empty_like(order)
    found[order] = torch.arange(len(values)) - first[values[order]]
    return found
