"""What a student takes, images or texts: how it is given, read and put into the graph."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, TextIO

import numpy as np

from cdl.device.errors import CdlError
from cdl.device.names import check_class_name

BATCH = 32  # items
# items by the name of their class, or a path from which `Items.by_class` reads them
ByClass = str | PathLike[str] | Mapping[str, Any]
_SIDEWAYS = ("/", "\\")


class Items(ABC):
    """Items of one modality.

    Attributes:
        kind: what they are called, in the plural.
        argument: name of what `predict` takes on a command line.
        column: its name in the output of `predict`.
        given: its description.
        path: name of what `learn` takes on a command line.
        layout: its description, which `by_class` reads.
        packages: what reading them needs in addition to numpy, onnxruntime and safetensors.
    """

    kind: ClassVar[str]
    argument: ClassVar[str]
    column: ClassVar[str]
    given: ClassVar[str]
    path: ClassVar[str]
    layout: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]

    @classmethod
    @abstractmethod
    def open(cls, folder: Path) -> "Items":
        """Return the items of the student in a folder."""

    @abstractmethod
    def several(self, given: Any) -> list[Any]:
        """Return a list of items, also for a single one."""

    @abstractmethod
    def batches(self, items: Sequence[Any]) -> Iterator[tuple[list[int], list[Any]]]:
        """Read items; yield positions and contents of those that fit into one batch.

        Raises:
            CdlError: an item is unreadable or invalid.
        """

    @abstractmethod
    def array(self, given: Any) -> np.ndarray:
        """Return the input of the graph; raise `CdlError` if they do not fit into one batch."""

    @abstractmethod
    def listed(self, arguments: Sequence[str], stdin: TextIO) -> list[str]:
        """Return the items of a command line; `-` reads lines from stdin."""

    @abstractmethod
    def by_class(self, path: Path) -> dict[str, list[Any]]:
        """Return the items of each class in `layout`; raise `CdlError` if there are none."""

    @abstractmethod
    def unlabelled(self, path: Path) -> list[Any]:
        """Return the items below or in a path; raise `CdlError` if there are none."""

    @abstractmethod
    def random(self, n: int, size: tuple[int, int] | None = None) -> list[Any]:
        """Return random items of a size, to measure times."""


def check_new_name(name: object, where: object) -> str:
    """Return the name of a class that can be that of a folder, as `check_class_name` does."""
    checked = check_class_name(name, where)
    sideways, long = any(c in checked for c in _SIDEWAYS), len(checked.encode()) > 255
    if checked.startswith(".") or sideways or long:
        raise CdlError(
            f"{str(where)!r:.300}: invalid class name {checked!r:.100}; expected the name of a "
            "folder: up to 255 bytes, no slash, no leading dot"
        )
    return checked


def by_name(
    given: ByClass, items: Items, known: Sequence[str] | None = None, what: str = "test"
) -> dict[str, list[Any]]:
    """Return items by the names of their classes as `check_new_name` returns them.

    Raises:
        CdlError: a file cannot be read; a name is invalid, or none of the `known` classes; or there
            is no item of a class, or no class.
    """
    found: dict[str, list[Any]] = {}
    every = given if isinstance(given, Mapping) else items.by_class(Path(given))
    for name, some in every.items():
        checked = check_new_name(name, items.kind)
        if known is not None and checked not in known:
            raise CdlError(
                f"{what}: {checked!r:.100} is not a class of this student; expected its classes"
            )
        found[checked] = found.get(checked, []) + items.several(some)
    if not all(found.values()) or not found:
        empty = next((repr(name) for name, some in found.items() if not some), "any class")
        raise CdlError(f"{items.kind}: there is none of {empty}; expected at least one")
    return found
