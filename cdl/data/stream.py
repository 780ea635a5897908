"""The sequence of tasks: class order, classes per task, images of each task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cdl.data.order import Tasks, digest_of, domains_of, labels_of, sizes_of
from cdl.data.packed import Packed
from cdl.data.packing import domain_of
from cdl.runtime.errors import CdlError
from cdl.runtime.seeds import permutation
from cdl.spec import OrderSeed

_ORDER, _SUBSET, _CUT = 101, 102, 104  # purposes of the counter-based draws below


@dataclass(frozen=True)
class Stream:
    """Classes in learning order, divided into tasks.

    Labels used by models are positions in this order, so that task `t` owns the columns
    `classes(t)` of every head and the classes seen so far are always a prefix. The dataset may have
    more classes, which are not learnt yet.

    Attributes:
        order: `order[p]` is the dataset's label at position `p`, for every class of the tasks.
        sizes: number of new classes of each task.
        domains: the domain of each task in a domain-incremental stream, where all classes are new
            in the first task and present in every task; empty in a class-incremental stream.
    """

    order: tuple[int, ...]
    sizes: tuple[int, ...]
    domains: tuple[str, ...] = ()

    @classmethod
    def build(
        cls,
        classes: Sequence[str],
        tasks: Tasks,
        class_order: str | OrderSeed | Sequence[int | str],
        seed: int,
    ) -> "Stream":
        """Build a stream.

        Args:
            classes: names of the dataset's classes by label.
            tasks: see `cdl.data.order.sizes_of`.
            class_order: `natural`, `seeded` (by the run's seed), `seeded_tasks` (the natural order,
                in which equal tasks as a whole are shuffled by the run's seed), a seed of its own,
                or labels or names in order.
            seed: the run's seed.

        Raises:
            CdlError: the classes cannot be divided that way, or the order contains an unknown
                class.
        """
        if class_order == "seeded":
            class_order = OrderSeed(seed)
        if isinstance(class_order, OrderSeed):
            order = permutation((_ORDER, class_order.seed), len(classes)).tolist()
        elif class_order == "natural":
            order = list(range(len(classes)))
        elif class_order == "seeded_tasks":
            (size, *_), first = sizes_of(tasks, len(classes)), torch.arange(len(classes))
            shuffled = permutation((_ORDER, seed), len(classes) // size)
            order = first.view(-1, size)[shuffled].flatten().tolist()
        else:
            order = labels_of(class_order, classes)
        sizes = sizes_of(tasks, len(order))
        return cls(tuple(order[: sum(sizes)]), tuple(sizes), tuple(domains_of(tasks)))

    @classmethod
    def learnt(cls, classes: Sequence[str], tasks: Tasks) -> "Stream":
        """Return the stream of a finished run, from its classes in order and its tasks."""
        return cls.build(classes, tasks, "natural", 0)

    def classes(self, task: int) -> slice:
        """Return the positions (head columns) of a task's classes."""
        if self.domains:
            return slice(0, len(self.order))
        start = sum(self.sizes[:task])
        return slice(start, start + self.sizes[task])

    def columns(self, task: int, which: str) -> slice:
        """Return a task's classes (`task`), or those of all tasks up to it (`seen`)."""
        classes = self.classes(task)
        return slice(0, classes.stop) if which == "seen" else classes

    def width(self, task: int) -> int:
        """Return the number of classes of a task."""
        return len(self.order[self.classes(task)])

    def labels(self, data: Packed) -> Tensor:
        """Return the positions of all images' classes, `[N]` int64; -1: in no task."""
        position = torch.full((len(data.classes),), -1)
        position[list(self.order)] = torch.arange(len(self.order))
        return position[data.labels]

    def indices(self, data: Packed, task: int, images_per_class: int | None = None) -> Tensor:
        """Return the indices of a task's images, class by class, ascending in each.

        Args:
            data: a split.
            task: counted from 0.
            images_per_class: number of images to keep of each class, the same ones for every
                seed; None keeps all.

        Raises:
            CdlError: a class has fewer images than `images_per_class`, or a domain has none.
        """
        labels = self.labels(data)
        if self.domains:
            inside = [domain_of(name) == self.domains[task] for name in data.names]
            labels[~torch.tensor(inside)] = -1
        kept = []
        for position in range(len(self.order))[self.classes(task)]:
            found = torch.nonzero(labels == position)[:, 0]
            if images_per_class is not None:
                if len(found) < images_per_class:
                    name = data.classes[self.order[position]]
                    raise CdlError(
                        f"images_per_class: {images_per_class} is too large: class {name!r} has "
                        f"{len(found)} examples"
                    )
                found = found[permutation((_SUBSET,), len(found))[:images_per_class].sort().values]
            kept.append(found)
        if self.domains and not any(map(len, kept)):
            found_domains = sorted({domain_of(name) for name in data.names})
            raise CdlError(
                f"tasks.domains: {self.domains[task]!r} has no example; expected one of "
                f"{found_domains}"
            )
        return torch.cat(kept)

    def digest(self, about: Mapping[str, Any], classes: Sequence[str], task: int) -> str:
        """Return a digest of one task's images.

        Args:
            about: entry of the split in the manifest.
            classes: names of the dataset's classes by label.
            task: counted from 0.
        """
        names = [classes[label] for label in self.order[self.classes(task)]]
        return digest_of(about, names, self.domains[task : task + 1])


def cut(n: int, task: int, n_tasks: int, seed: int) -> Tensor:
    """Return a task's random share of `n` unlabelled images, as ascending indices."""
    return permutation((_CUT, seed), n).tensor_split(n_tasks)[task].sort().values
