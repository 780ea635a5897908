"""The sequence of tasks: class order, classes per task, and which images belong to each task."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from cdl.data.packed import Packed
from cdl.runtime.errors import CdlError
from cdl.runtime.seeds import permutation

_ORDER, _SUBSET, _CUT = 101, 102, 104  # purposes of the counter-based draws below


@dataclass(frozen=True)
class Stream:
    """Classes in learning order, cut into tasks.

    Labels used by models are positions in this order, so that task `t` owns the columns
    `classes(t)` of every head and the classes seen so far are always a prefix.

    Attributes:
        order: `order[p]` is the dataset's label at position `p`.
        sizes: number of classes of each task.
    """

    order: tuple[int, ...]
    sizes: tuple[int, ...]

    @classmethod
    def build(
        cls,
        n_classes: int,
        tasks: int | list[int],
        class_order: Literal["natural", "seeded"] | list[int],
        seed: int,
    ) -> "Stream":
        """Make a stream.

        Args:
            n_classes: classes of the dataset.
            tasks: number of equal tasks, or the number of classes of each task.
            class_order: `natural`, `seeded` (by the run's seed), or all labels in order.
            seed: the run's seed.

        Raises:
            CdlError: the classes cannot be cut that way, or the order is no permutation.
        """
        if isinstance(tasks, int):
            if n_classes % tasks:
                raise CdlError(
                    f"tasks: {tasks} equal tasks cannot be made of {n_classes} classes; "
                    "give a divisor or a list of sizes"
                )
            tasks = [n_classes // tasks] * tasks
        if sum(tasks) != n_classes:
            raise CdlError(f"tasks: {tasks} are {sum(tasks)} classes; the dataset has {n_classes}")
        if class_order == "natural":
            order = list(range(n_classes))
        elif class_order == "seeded":
            order = permutation((_ORDER, seed), n_classes).tolist()
        else:
            order = class_order
        if sorted(order) != list(range(n_classes)):
            raise CdlError(f"class_order: {order} is not a permutation of 0 to {n_classes - 1}")
        return cls(tuple(order), tuple(tasks))

    def classes(self, task: int) -> slice:
        """Return the positions (head columns) of a task's classes."""
        start = sum(self.sizes[:task])
        return slice(start, start + self.sizes[task])

    def labels(self, data: Packed) -> Tensor:
        """Return every image's label as its position in the order, `[N]` int64."""
        position = torch.empty(len(self.order), dtype=torch.int64)
        position[list(self.order)] = torch.arange(len(self.order))
        return position[data.labels]

    def indices(self, data: Packed, task: int, images_per_class: int | None = None) -> Tensor:
        """Return the indices of a task's images in `data`, ascending.

        Args:
            data: a split.
            task: counted from 0.
            images_per_class: keep this many of each class (a fixed choice, the same for every
                seed); None keeps all.

        Raises:
            CdlError: a class has fewer images than asked for.
        """
        labels = self.labels(data)
        kept = []
        for position in range(len(self.order))[self.classes(task)]:
            found = torch.nonzero(labels == position)[:, 0]
            if images_per_class is not None:
                if len(found) < images_per_class:
                    name = data.classes[self.order[position]]
                    raise CdlError(
                        f"images_per_class: {images_per_class}, but class {name!r} has "
                        f"only {len(found)} images"
                    )
                found = found[permutation((_SUBSET,), len(found))[:images_per_class]]
            kept.append(found)
        return torch.cat(kept).sort().values

    def cut(self, n: int, task: int, seed: int) -> Tensor:
        """Return which of `n` images without a class are a task's, ascending: a random share."""
        shares = permutation((_CUT, seed), n).tensor_split(len(self.sizes))
        return shares[task].sort().values
