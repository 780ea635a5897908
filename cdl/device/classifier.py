"""The interface of a student, from items to classes."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from cdl.device.errors import CdlError
from cdl.device.items import Items

NO_SCORES = (
    "this student keeps no thresholds of its classes; export its run again, without --no-check and "
    "--no-memory"
)


class Classifier(ABC):
    """A student that has finished learning.

    It takes a single item or several. Images are paths, Pillow images or uint8 arrays `[H, W, 3]`
    of any sizes, rotated upright by EXIF and put on white if transparent, like training images.
    Texts are `str`.

    Attributes:
        classes: class names in the order in which they were learnt, the order of all columns.
        items: the kind of items that it takes.
        progress: None, or a function that is called after each batch with the number of finished
            items and the number of all items.
    """

    classes: tuple[str, ...]
    items: Items
    progress: Callable[[int, int], None] | None = None

    @abstractmethod
    def preprocess(self, given: Any) -> Any:
        """Return the input of `logits`."""

    @abstractmethod
    def logits(self, batch: Any) -> np.ndarray:
        """Return logits `[n, C]` of the output of `preprocess`."""

    def predict_proba(self, given: Any) -> np.ndarray:
        """Return probabilities `[n, C]` of all classes, in fp32.

        Raises:
            CdlError: an item cannot be read or is invalid.
        """
        width = len(self.classes)
        run = self.in_batches(given, lambda some: self.logits(self.preprocess(some)), width)
        return probabilities(run)

    def best(self, item: Any, n: int) -> list[tuple[str, float]]:
        """Return the `n` most probable classes of an item with their probabilities."""
        (found,) = self.predict_proba(item)
        return self.most_probable(found, n)

    def most_probable(self, row: np.ndarray, n: int) -> list[tuple[str, float]]:
        """Return the `n` most probable classes of a row `[C]` of `predict_proba`.

        Among equal probabilities the class learnt first comes first, as in `predict`.
        """
        return [(self.classes[i], float(row[i])) for i in (-row).argsort(kind="stable")[:n]]

    @property
    def scored(self) -> bool:
        """Whether it has thresholds for `judged`, see `belonging`."""
        return False

    def judged(self, given: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return what `predict_proba` returns, and score and threshold of each item, `[n, 2]`.

        Raises:
            CdlError: as `predict_proba`, or the student is not `scored`.
        """
        raise CdlError(f"unknown: {NO_SCORES}")

    def predict(self, given: Any) -> list[str]:
        """Return the most probable class of each item; see `predict_proba`."""
        return [self.classes[best] for best in self.predict_proba(given).argmax(1)]

    def in_batches(
        self, given: Any, function: Callable[[list[Any]], np.ndarray], *shape: int
    ) -> np.ndarray:
        """Return the results `[n, *shape]` in fp32 of a function of items of one batch."""
        every = self.items.several(given)
        found, done = np.zeros((len(every), *shape), np.float32), 0
        for rows, contents in self.items.batches(every):
            found[rows] = function(contents)
            done += len(rows)
            if self.progress is not None:
                self.progress(done, len(every))
        return found


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Return the softmax of logits `[n, C]`; raise `CdlError` if they are not finite."""
    if not np.isfinite(logits).all():
        raise CdlError("the model's output is not finite, so no class can be predicted")
    exp = np.exp(logits - logits.max(1, keepdims=True))
    found: np.ndarray = exp / exp.sum(1, keepdims=True)
    return found
