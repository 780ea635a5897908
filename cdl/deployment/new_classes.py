"""The items of new classes for `cdl learn` of a run: checked, and with test items split off."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from cdl.runtime.errors import CdlError

_TEST_SHARE = 0.2  # share of a class's items, without test items


class New(NamedTuple):
    """An item of a user's own files: class, sha256 of its content, and its path or text."""

    label: str
    sha256: str
    content: Any


class NewItems(ABC):
    """How the items of a modality are read and packed.

    layout: files of new classes in words.
    item: what an item is called.
    """

    layout: ClassVar[str]
    item: ClassVar[str]

    @abstractmethod
    def read(self, path: Path) -> list[New]:
        """Return the items of new classes, those of a class one after the other.

        Raises:
            CdlError: the files cannot be read, or items are unreadable, which are all listed.
        """

    @abstractmethod
    def place(self, path: Path, label: str) -> str:
        """Return where the items of a class are, for messages."""

    @abstractmethod
    def unlabelled(self, path: Path) -> list[New]:
        """Return items without a class; raise `CdlError` as `read`, or if there is none."""

    @abstractmethod
    def pack(
        self, train: Sequence[New], test: Sequence[New], output: Path, short_side: int | None
    ) -> None:
        """Write items as packed data of their classes only."""


@dataclass(frozen=True)
class NewClasses:
    """The classes of a new task with their items.

    names: class names in alphabetical order, the order in which they are learnt.
    train: training items.
    test: test items.
    """

    names: tuple[str, ...]
    train: tuple[New, ...]
    test: tuple[New, ...]

    @classmethod
    def read(
        cls, kind: NewItems, path: Path, test: Path | None, known: Collection[str]
    ) -> "NewClasses":
        """Read the items of new classes.

        Args:
            kind: of the run's modality.
            path: training items, see `NewItems.layout`.
            test: the same for test items of the same classes; None: a fifth of the items of each
                class, at least one, is used for the test, those with the lowest sha256.
            known: classes that the learner has learnt already.

        Raises:
            CdlError: there is no class; a class is known already, has one item and no test items,
                or is missing in `test`; items are unreadable, which are all listed.
        """
        items = kind.read(path)
        names = tuple(sorted({item.label for item in items}))
        if not names:
            raise CdlError(f"{path}: contains no class; expected {kind.layout}")
        taken = [name for name in names if name in known]
        if taken:
            raise CdlError(
                f"{path}: {', '.join(map(repr, taken))}: learnt already; expected only new classes"
            )
        single = [name for name, n in Counter(item.label for item in items).items() if n == 1]
        if single and test is None:
            raise CdlError(
                f"{kind.place(path, single[0])}: contains one {kind.item}; expected at least two, "
                "one of them for the test"
            )
        tested = [] if test is None else kind.read(test)
        unmatched = {item.label for item in tested} ^ set(names)
        if test is not None and unmatched:
            raise CdlError(
                f"{test}: class {min(unmatched)!r} is not in both; expected the classes "
                f"{', '.join(map(repr, names))}"
            )
        if test is None:
            tested = _drawn(items)
            chosen = {*map(id, tested)}
            items = [item for item in items if id(item) not in chosen]
        return cls(names, tuple(items), tuple(tested))


def _drawn(items: Sequence[New]) -> list[New]:
    """Return a fifth of the items of each class, at least one, chosen by their sha256."""
    chosen = []
    for _, group in groupby(items, lambda item: item.label):
        ranked = sorted(group, key=lambda item: item.sha256)
        chosen += ranked[: max(1, round(_TEST_SHARE * len(ranked)))]
    return chosen
