"""What a student remembers of all classes instead of images.

`memory.safetensors` has tensors, and JSON in its metadata under the key `cdl` (`stored`). All kinds
have the number of images of each class, `counts [C]` (weighted, if there is also `images [C]`).
Further ones are in the module of a kind: `means`, `ridge`, `fecam`, `aligned`. Symmetric matrices
are stored as their upper triangles (`closed.pack`). If the export read training images, there are
`threshold [C]`, see `belonging`; `examples` and `owners`, see `kept`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from cdl.device.belonging import THRESHOLD, nearest, thresholds_after
from cdl.device.errors import CdlError
from cdl.device.kept import EXAMPLES, OWNERS, fewer_examples, more_examples

HEADS = ("aligned", "ridge")
CHOICES = ("all", "last")

Tensors = dict[str, np.ndarray]


@dataclass(frozen=True)
class How:
    """Choices for an update.

    head: how to compute heads with class statistics, one of `HEADS`; None: as before.
    ridge: images that choose a ridge, one of `CHOICES`: those of all tasks, or of this update
        alone, as published.
    balance: whether a class with few images counts in a ridge as much as the earlier classes on
        average; else each image counts once.
    keep: number of earlier classes whose columns stay as they are, of a ridge or class means.
    """

    head: str | None = None
    ridge: str = "all"
    balance: bool = True
    keep: int = 0

    def __post_init__(self) -> None:
        """Raise `CdlError` if a choice is invalid."""
        for name, expected in (("head", (None, *HEADS)), ("ridge", CHOICES)):
            if (value := getattr(self, name)) not in expected:
                words = " or ".join(filter(None, expected))
                raise CdlError(f"{name}: invalid value {value!r:.50}; expected {words}")


class Memory(ABC):
    """The state of a student that learns; it does not change, an update returns another one.

    Attributes:
        kinds: the class of each kind; a program has one of the kinds.
        keeps: whether `learn` can leave the columns of earlier classes as they are.
        fixed: tensors that do not grow with the classes.
        columns: tensors whose columns are classes; in others, rows are.
        updating: parts of the names of tensors that only updates read.
    """

    kinds: ClassVar[dict[str, type["Memory"]]] = {}
    keeps: ClassVar[bool] = False
    fixed: ClassVar[tuple[str, ...]] = ()
    columns: ClassVar[tuple[str, ...]] = ()
    updating: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, kind: str) -> None:
        """Register a class for a kind."""
        cls.kinds[kind] = cls

    def __init__(self, about: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
        """Keep the content of a file.

        Args:
            about: `kind`, the options of the kind, and the number of `updates` after the export.
            tensors: by name, see above.
        """
        self.about, self.tensors = dict(about), dict(tensors)

    def bytes(self) -> tuple[int, int]:
        """Return the bytes of all tensors, and those that a further class adds."""
        sizes = {name: tensor.nbytes for name, tensor in self.tensors.items()}
        grows = sum(size for name, size in sizes.items() if name not in self.fixed)
        return sum(sizes.values()), grows // max(1, len(self.tensors["counts"]))

    def images(self) -> np.ndarray:
        """Return the number of images of each class, `[C]`."""
        return self.tensors.get("images", self.tensors["counts"])

    @abstractmethod
    def logits(self, tokens: np.ndarray) -> np.ndarray:
        """Return logits `[n, C]` for tokens `[n, T, D]`, the graph's second output."""

    @abstractmethod
    def learn(self, tokens: np.ndarray, labels: np.ndarray, n: int, how: How) -> "Memory":
        """Return the memory after an update.

        Args:
            tokens: `[k, T, D]`.
            labels: classes `[k]` of the images, those of new classes from `C` on.
            n: number of classes after the update.
            how: choices for the update.
        """

    @abstractmethod
    def features(self, tokens: np.ndarray) -> np.ndarray:
        """Return what the class means are of, `[n, M]`, for tokens `[n, T, D]`."""

    @abstractmethod
    def means(self) -> np.ndarray:
        """Return the class means, `[C, M]`."""

    def forget(self, label: int) -> Self:
        """Return the memory without a class; the Gram matrix of a ridge, of all images, stays."""
        new = {
            name: np.delete(tensor, label, -1 if name in self.columns else 0)
            for name, tensor in self.tensors.items()
            if name not in (*self.fixed, EXAMPLES, OWNERS)
        }
        new |= fewer_examples(self.tensors, label)
        return type(self)(self.about, self.tensors | new)

    def after(self, before: "Memory", tokens: np.ndarray, labels: np.ndarray) -> "Memory":
        """Return the memory with the thresholds and examples after an update of another one.

        Args:
            before: the memory before the update; without thresholds or examples there will be none.
            tokens: `[k, T, D]` of the update.
            labels: their classes `[k]`.
        """
        new = self.tensors | more_examples(before.tensors, tokens, labels)
        if THRESHOLD in before.tensors:
            known, features = before.tensors[THRESHOLD], self.features(tokens)
            new[THRESHOLD] = thresholds_after(known, features, labels, self.means(), self.images())
        return type(self)(self.about, new)

    def lowered(self, examples: np.ndarray, keep: int, percent: float) -> "Memory":
        """Return the memory with a bias of the new classes that lets few examples move to them.

        Args:
            examples: tokens of earlier classes, `[k, T, D]`.
            keep: number of earlier classes.
            percent: the largest share of examples whose class may become a new one.
        """
        logits, new = self.logits(examples), self.tensors["bias"].copy()
        margins = np.sort(logits[:, :keep].max(1) - logits[:, keep:].max(1))
        allowed = int(percent * len(margins) / 100)
        if allowed < len(margins):  # rounding must not move one more
            new[keep:] += min(0.0, float(margins[allowed]) - 1e-6 * float(np.abs(logits).max()))
        return type(self)(self.about, {**self.tensors, "bias": new})

    def scores(self, tokens: np.ndarray) -> np.ndarray:
        """Return score and threshold of tokens `[n, T, D]`, see `belonging`, `[n, 2]`."""
        return nearest(self.features(tokens), self.means(), self.tensors[THRESHOLD])

    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of its tensors; raise `ValueError` if an option is invalid.

        They follow from `counts [C]` and the width of a weight.
        """

    def check(self) -> None:
        """Raise `ValueError` or `LookupError` unless options and tensors fit together.

        All numbers are finite. Invalid options that are not checked here raise errors where they
        are used.
        """
        n, k = len(self.tensors["counts"]), len(self.tensors.get(OWNERS, ()))
        shapes = {"counts": (n,), **self.shapes()}
        if k or EXAMPLES in self.tensors:
            shapes |= {OWNERS: (k,), EXAMPLES: (k, *self.tensors[EXAMPLES].shape[1:])}
        for name, expected in shapes.items():
            shape = self.tensors[name].shape
            if shape != expected:
                raise ValueError(f"{name}: invalid shape {shape}; expected {expected}")
        for name, tensor in self.tensors.items():
            if tensor.dtype.kind != "f" or not np.isfinite(tensor).all():
                raise ValueError(f"{name}: contains what is not a finite number")
        if k and not np.isin(self.tensors[OWNERS], np.arange(n)).all():
            raise ValueError(f"{OWNERS}: contains what is not the position of a class")
