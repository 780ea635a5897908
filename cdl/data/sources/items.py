"""Output of a source: class names, and the images of both splits."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cdl.runtime.errors import CdlError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Item:
    """One image: split, label, name for error messages, function that reads it."""

    split: str
    label: int
    name: str
    read: "Callable[[], np.ndarray]"  # [H, W, 3] uint8


@dataclass(frozen=True)
class Source:
    """Class names in label order, items of both splits, skipped files by suffix."""

    classes: tuple[str, ...]
    items: Iterable[Item]
    skipped: Mapping[str, int] = field(default_factory=dict)


def class_names(names: Mapping[int, str], path: str) -> tuple[str, ...]:
    """Return names in label order.

    Raises:
        CdlError: the labels have a gap or do not start at 0, or a name is empty or used twice.
    """
    missing = sorted(set(range(len(names))) - set(names))
    if missing:
        raise CdlError(
            f"{path}: none of the {len(names)} classes has label {missing[0]}; expected labels "
            "from 0 without a gap"
        )
    owner: dict[str, int] = {}
    for label in range(len(names)):
        name = names[label]
        if name is None or name == "":
            raise CdlError(f"{path}: the class with label {label} has no name ({name!r})")
        if owner.setdefault(name, label) != label:
            raise CdlError(f"{path}: the labels {owner[name]} and {label} are both named {name!r}")
    return tuple(names[i] for i in range(len(names)))
