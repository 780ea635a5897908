"""The sequence of tasks: class order, classes per task, and which images belong to each task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from cdl.data.order import labels_of, sizes_of
from cdl.data.packed import Packed
from cdl.runtime.errors import CdlError
from cdl.runtime.seeds import permutation

_ORDER, _SUBSET, _CUT = 101, 102, 104  # purposes of the counter-based draws below


@dataclass(frozen=True)
class Stream:
    """Classes in learning order, cut into tasks.

    Labels used by models are positions in this order, so that task `t` owns the columns
    `classes(t)` of every head and the classes seen so far are always a prefix. The dataset may have
    more classes, which are not learnt yet.

    Attributes:
        order: `order[p]` is the dataset's label at position `p`, for every class of the tasks.
        sizes: number of classes of each task.
    """

    order: tuple[int, ...]
    sizes: tuple[int, ...]

    @classmethod
    def build(
        cls,
        classes: Sequence[str],
        tasks: int | list[int],
        class_order: Literal["natural", "seeded"] | list[int | str],
        seed: int,
    ) -> "Stream":
        """Make a stream.

        Args:
            classes: of the dataset, their names by label.
            tasks: number of equal tasks, or the number of classes of each task.
            class_order: `natural`, `seeded` (by the run's seed), or labels or names in order.
            seed: the run's seed.

        Raises:
            CdlError: the classes cannot be cut that way, or the order names what is not there.
        """
        if class_order == "seeded":
            order = permutation((_ORDER, seed), len(classes)).tolist()
        elif class_order == "natural":
            order = list(range(len(classes)))
        else:
            order = labels_of(class_order, classes)
        sizes = sizes_of(tasks, len(order))
        return cls(tuple(order[: sum(sizes)]), tuple(sizes))

    @classmethod
    def learnt(cls, classes: Sequence[str], spec: Mapping[str, Any]) -> "Stream":
        """Return the stream of a finished run, from its classes in order and its specification."""
        return cls.build(classes, spec["stream"]["tasks"], "natural", 0)

    def classes(self, task: int) -> slice:
        """Return the positions (head columns) of a task's classes."""
        start = sum(self.sizes[:task])
        return slice(start, start + self.sizes[task])

    def labels(self, data: Packed) -> Tensor:
        """Return every image's label as its position in the order, `[N]` int64; -1: in no task."""
        position = torch.full((len(data.classes),), -1)
        position[list(self.order)] = torch.arange(len(self.order))
        return position[data.labels]

    def indices(self, data: Packed, task: int, images_per_class: int | None = None) -> Tensor:
        """Return the indices of a task's images in `data`, class by class, ascending in each.

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
                found = found[permutation((_SUBSET,), len(found))[:images_per_class].sort().values]
            kept.append(found)
        return torch.cat(kept)

    def names(self, data: Packed, task: int) -> list[str]:
        """Return the names of a task's classes."""
        return [data.classes[label] for label in self.order[self.classes(task)]]


def cut(n: int, task: int, n_tasks: int, seed: int) -> Tensor:
    """Return which of `n` images without a class are a task's, ascending: a random share."""
    return permutation((_CUT, seed), n).tensor_split(n_tasks)[task].sort().values
