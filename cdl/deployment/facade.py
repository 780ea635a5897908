"""The student that `cdl.load` returns: one interface to runs and exports, of images and texts."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from os import PathLike
from pathlib import Path
from typing import Any, overload

import numpy as np

from cdl.deployment.manifest import CARD
from cdl.device.belonging import UNKNOWN, Score
from cdl.device.classifier import Classifier
from cdl.device.items import ByClass
from cdl.device.main import show_progress
from cdl.device.predict import uses_scores
from cdl.device.student import DeviceStudent
from cdl.device.update import Update
from cdl.runtime.errors import CdlError
from cdl.runtime.shown import Shown

_SHOWN = 5  # classes in `repr` and in messages


@dataclass(frozen=True, repr=False)
class Evaluation(Shown):
    """Accuracy of a student on items of known classes.

    accuracy: percent of all items.
    by_class: percent of the items of each class.
    count: number of items.
    items: what they are, `images` or `texts`.
    """

    accuracy: float
    by_class: Mapping[str, float]
    count: int
    items: str

    def as_dict(self) -> dict[str, Any]:
        """Return the accuracies for JSON."""
        return asdict(self)

    def text(self) -> str:
        """Return the accuracies as text, the worst class first."""
        worst = sorted(self.by_class.items(), key=lambda pair: pair[1])
        width = max(len(name) for name in self.by_class)
        lines = [f"  {name:<{width}}  {accuracy:.1f} %" for name, accuracy in worst]
        head = f"{self.accuracy:.2f} % of {self.count} {self.items} of {len(worst)} classes"
        return "\n".join([head, *lines])


class Student:
    """A student that has finished learning; `cdl.load` returns it.

    Items are one or several. Images are paths, Pillow images, or arrays and tensors, grey or in
    colour, of uint8 or of floats from 0 to 1 (which are rounded to uint8), of any sizes; they are
    rotated upright by EXIF and put on white if transparent, like training images. A folder alone
    is all images below it, in the order of their paths. Texts are `str`.
    """

    def __init__(self, student: Classifier, source: str) -> None:
        """Wrap a student that was loaded from `source`."""
        self._student, self._source = student, source

    def __repr__(self) -> str:
        """Return classes, version and where it is from."""
        version = "a run" if self.version is None else f"version {self.version}"
        return f"<Student of {_some(self.classes)}; {version}; {self._source}>"

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order in which they were learnt, the order of all columns."""
        return self._student.classes

    @property
    def version(self) -> int | None:
        """Version of an export, which every update increases; None for a run."""
        return self._student.version if isinstance(self._student, DeviceStudent) else None

    @property
    def card(self) -> str:
        """The model card in Markdown: data, protocol, accuracies, limits and licences."""
        if isinstance(self._student, DeviceStudent):
            try:
                return (self._student.folder / CARD).read_text(encoding="utf-8")
            except (OSError, ValueError) as error:
                raise CdlError(f"{self._student.folder / CARD}: cannot be read ({error})") from None
        from cdl.deployment.card import card

        return card(self._student, [])  # type: ignore[arg-type]

    @overload
    def predict(
        self,
        items: Any,
        top: None = None,
        *,
        unknown: bool = False,
        threshold: float | None = None,
    ) -> list[str]: ...

    @overload
    def predict(self, items: Any, top: int) -> list[list[tuple[str, float]]]: ...

    def predict(
        self,
        items: Any,
        top: int | None = None,
        *,
        unknown: bool = False,
        threshold: float | None = None,
    ) -> list[str] | list[list[tuple[str, float]]]:
        """Return the most probable class of each item.

        Args:
            items: one item or several, see the class.
            top: number of classes for each item; then a list of classes with their probabilities
                for each, the most probable first.
            unknown: whether an item that belongs to none of the classes gets `"unknown"` in the
                place of a class: one whose score is below its threshold, see `scores`.
            threshold: another threshold for all classes, which implies `unknown`.

        Raises:
            CdlError: an item cannot be read or is invalid, or the student keeps no scores.
        """
        if top is not None and (isinstance(top, bool) or not isinstance(top, int) or top < 1):
            raise CdlError(f"top: invalid value {top!r:.50}; expected a whole number above 0")
        if unknown or threshold is not None:
            if top is not None:
                raise CdlError("top: excludes unknown and threshold; `scores` returns the scores")
            uses_scores(self._student, True, threshold)
            probabilities, scores = self._student.judged(self._given(items))
            names = [self.classes[best] for best in probabilities.argmax(1)]
            found = [Score.of(row, threshold).unknown for row in scores]
            return [UNKNOWN if own else name for own, name in zip(found, names, strict=True)]
        if top is None:
            return self._student.predict(self._given(items))
        return [self._student.most_probable(row, top) for row in self.predict_proba(items)]

    def predict_proba(self, items: Any) -> np.ndarray:
        """Return probabilities `[n, C]` of all classes, in fp32; raise `CdlError` as `predict`."""
        return self._student.predict_proba(self._given(items))

    def scores(self, items: Any) -> np.ndarray:
        """Return score and threshold of each item `[n, 2]`: below it, the item is unknown.

        The score is the cosine of the features with the nearest class mean; the threshold is the
        5 % quantile of the cosines of this class's own training items.

        Raises:
            CdlError: as `predict`, or the student keeps no thresholds.
        """
        return self._student.judged(self._given(items))[1]

    def features(self, items: Any) -> np.ndarray:
        """Return what the heads read `[n, D]`: the class token, and a KD token behind it.

        Raises:
            CdlError: as `predict`; or the export has no features.
        """
        tokens = self._student.features(self._given(items))  # type: ignore[attr-defined]
        found: np.ndarray = tokens.reshape(len(tokens), prod(tokens.shape[1:]))
        return found

    def evaluate(self, items: ByClass) -> Evaluation:
        """Return the accuracy on items of known classes.

        Args:
            items: a folder `CLASS/IMAGE`, a CSV file with the columns `text` and `label`, or items
                by the name of their class.

        Raises:
            CdlError: an item cannot be read, or a class is not one of the student's.
        """
        given = self._by_class(items)
        if unknown := [name for name in given if name not in self.classes]:
            raise CdlError(
                f"evaluate: {_some(unknown)}: not among the {_some(self.classes)} of this student; "
                "expected its classes"
            )
        found = self.predict([item for some in given.values() for item in some])
        labels = [name for name, some in given.items() for _ in some]
        right = np.array([a == b for a, b in zip(found, labels, strict=True)], float)
        if not len(right):
            raise CdlError(f"evaluate: there are no {self._student.items.kind}; expected some")
        own = np.array(labels)
        by_class = {
            name: 100 * float(right[own == name].mean()) for name, some in given.items() if some
        }
        return Evaluation(100 * float(right.mean()), by_class, len(right), self._student.items.kind)

    def learn(
        self,
        items: ByClass,
        test: ByClass | None = None,
        unlabelled: Any = None,
        *,
        head: str | None = None,
        ridge: str = "all",
        balance: bool = True,
        check: ByClass | None = None,
        keep_earlier: float | None = None,
    ) -> Update:
        """Learn new classes, or more of known ones; the folder gets a new version.

        Args:
            items: as in `evaluate`, of any classes; one item of a class is enough.
            test: test items of any classes of the student; without them, every fifth item of a
                class with five or more measures the accuracy before all are learnt.
            unlabelled: items that get the student's own answers; or a folder of images, or a file
                with a text in each line.
            head: `aligned` or `ridge`: how heads are computed from the memory; None: as exported.
            ridge: `all` or `last`: tasks on which the ridge is chosen.
            balance: whether a class with few items counts as much as others in a ridge.
            check: items of earlier classes, on which broken answers are counted; without them, on
                the examples that the student keeps.
            keep_earlier: leave the order among the earlier classes for every item, and let at most
                this percentage of these examples become a new class; else the update is refused.

        Raises:
            CdlError: the student cannot learn, or an argument is invalid; nothing is changed then.
        """
        student = self._learning("learn")
        paths = isinstance(items, str | PathLike)
        if isinstance(unlabelled, str | PathLike) and (paths or Path(unlabelled).exists()):
            more: Sequence[Any] | None = student.items.unlabelled(Path(unlabelled))
        else:
            more = None if unlabelled is None else self._given(unlabelled)
        show_progress(student)
        try:
            return student.learn(
                self._by_class(items),
                test=None if test is None else self._by_class(test),
                unlabelled=more,
                head=head,
                ridge=ridge,
                balance=balance,
                check=None if check is None else self._by_class(check),
                keep_earlier=keep_earlier,
            )
        finally:
            student.progress = None

    def forget(self, name: str) -> Update:
        """Remove a class; the folder gets a new version. Raise `CdlError` if it cannot."""
        return self._learning("forget").forget(name)

    def undo(self) -> Update:
        """Return to the version before the last update; raise `CdlError` if it is not kept."""
        return self._learning("undo").undo()

    def info(self) -> dict[str, Any]:
        """Return version, classes, and the size of what it learns from; of an export only."""
        return self._learning("info").info()

    def costs(self) -> dict[str, Any]:
        """Measure what a prediction and a new class cost on this machine; of an export only."""
        return self._learning("costs").costs()

    def _learning(self, what: str) -> DeviceStudent:
        """Return the exported student; raise `CdlError` with the way there for a run."""
        if isinstance(self._student, DeviceStudent):
            return self._student
        call = f"{what}(...)" if what in ("learn", "forget") else f"{what}()"
        raise CdlError(
            f"{what}: {self._source} is a run, which does not change; export it, then use the "
            f"export: cdl.export({self._source!r}, 'student'); cdl.load('student').{call}"
        )

    def _given(self, items: Any) -> Sequence[Any]:
        """Return items as a list that the student reads."""
        if self._student.items.kind == "images":
            from cdl.deployment.pictures import pictures

            if isinstance(items, str | PathLike) and Path(items).is_dir():
                return self._student.items.unlabelled(Path(items))
            return pictures(items)
        try:
            found = [items] if isinstance(items, str) else list(items)
        except TypeError:
            found = [items]
        for item in found:
            if not isinstance(item, str):
                raise CdlError(f"text: is of type {type(item).__name__}; expected str")
        return found

    def _by_class(self, items: ByClass) -> dict[str, list[Any]]:
        """Return items by the name of their class."""
        if isinstance(items, str | PathLike):
            return self._student.items.by_class(Path(items))
        if isinstance(items, Mapping):
            return {str(name): [*self._given(some)] for name, some in items.items()}
        takes = self._student.items
        raise CdlError(
            f"{takes.kind}: are of type {type(items).__name__}; expected {takes.layout}, or a dict "
            "with the items of each class"
        )


def _some(names: Sequence[str]) -> str:
    """Return the number of classes and the first names."""
    more = ", ..." if len(names) > _SHOWN else ""
    plural = "class" if len(names) == 1 else "classes"
    return f"{len(names)} {plural} ({', '.join(names[:_SHOWN])}{more})"
