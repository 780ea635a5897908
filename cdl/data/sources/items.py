"""Output of a source: class names, and the images of both splits."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import TYPE_CHECKING

from cdl.data.modalities import DEFAULT
from cdl.data.order import labels_of
from cdl.device.names import check_class_name
from cdl.runtime.errors import CdlError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Item:
    """One image or item: split, label, name for error messages, function that reads it."""

    split: str
    label: int
    name: str
    read: "Callable[[], np.ndarray]"  # [H, W, C] uint8, of images C = 3


@dataclass(frozen=True)
class Source:
    """Class names in label order, items of both splits, skipped files by suffix, modality."""

    classes: tuple[str, ...]
    items: Iterable[Item]
    skipped: Mapping[str, int] = field(default_factory=dict)
    modality: str = DEFAULT

    def __post_init__(self) -> None:
        """Keep names as `check_class_name` returns them.

        Raises:
            CdlError: a class name is invalid, or there twice.
        """
        names = tuple(check_class_name(name, "classes") for name in self.classes)
        if twice := [name for name, n in Counter(names).items() if n > 1]:
            raise CdlError(
                f"classes: {twice[0]!r:.100} is the name of two classes, perhaps with space around "
                "it or in another form of Unicode; rename one"
            )
        object.__setattr__(self, "classes", names)


def only(source: Source, classes: Sequence[int | str] | None) -> Source:
    """Return a source with some of its classes, in the order of their labels.

    Args:
        source: the whole source.
        classes: labels or names of the classes to keep; None keeps all.

    Raises:
        CdlError: a class does not exist or is listed twice.
    """
    if classes is None:
        return source
    kept = sorted(labels_of(classes, source.classes, "classes"))
    labels = {label: i for i, label in enumerate(kept)}
    items = (replace(item, label=labels[item.label]) for item in source.items if item.label in kept)
    return replace(source, classes=tuple(source.classes[label] for label in kept), items=items)


def first_share(places: Collection[str], share: float) -> set[str]:
    """Return the places of the test items of one class, drawn by the order of their contents.

    Args:
        places: different hashes, one for each different item of the class.
        share: of the test items; there is at least one, and one item remains for training.
    """
    return set(sorted(places)[: min(len(places) - 1, ceil(share * len(places)))])


def class_names(names: Mapping[int, str], path: str) -> tuple[str, ...]:
    """Return names in label order.

    Raises:
        CdlError: the labels have a gap or do not start at 0, or a name is invalid or used twice.
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
        name = check_class_name(name, path)
        if owner.setdefault(name, label) != label:
            raise CdlError(f"{path}: the labels {owner[name]} and {label} are both named {name!r}")
    return tuple(owner)
