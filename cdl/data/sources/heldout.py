"""Validation images: some of the training images of each class, which nobody trains on."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

from cdl.data.sources.decoding import UnreadableImage
from cdl.data.sources.items import Item, Source
from cdl.data.sources.summary import Summary
from cdl.runtime.errors import CdlError


def hold_out(source: Source, per_class: int, seed: int = 0, evaluated: bool = False) -> Source:
    """Return a source whose training images lack those held out for validation.

    Of each class those images are held out that come first in the order of the sha256 of seed and
    pixels: whatever their names and order are, and with all copies of them. All training images
    are read once to find them.

    Args:
        source: training images and test images.
        per_class: how many different images of each class are held out.
        seed: of the draw, independent of the seeds of the runs.
        evaluated: they take the place of the test images, which are left out unread; else they
            are left out themselves.

    Raises:
        CdlError: a class has no image left to train on.
    """
    items = list(source.items)
    found: dict[int, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for i, item in enumerate(items):
        if item.split == "train" and (place := _place(item, seed)):
            found[item.label][place].append(i)
    held: set[int] = set()
    for label, places in sorted(found.items()):
        if len(places) <= per_class:
            raise CdlError(
                f"validation.per_class: {per_class} of class {source.classes[label]!r} leave no "
                f"training image; it has {len(places)}"
            )
        held.update(i for place in sorted(places)[:per_class] for i in places[place])
    return replace(source, items=list(_divided(items, held, evaluated)))


def remaining(whole: Summary, per_class: int, seed: int = 0, evaluated: bool = False) -> Summary:
    """Return the summary of what `hold_out` returns, copies of an image not counted."""
    held = per_class * whole.n_classes
    images = {"train": whole.images["train"] - held, "test": whole.images["test"]}
    classes = whole.classes and {
        name: (train - per_class, per_class if evaluated else test)
        for name, (train, test) in whole.classes.items()
    }
    return replace(whole, images=images | ({"test": held} if evaluated else {}), classes=classes)


def _place(item: Item, seed: int) -> str:
    """Return where an image stands in the draw; nothing if packing will name it as unreadable."""
    try:
        pixels = item.read()
    except UnreadableImage:
        return ""
    return hashlib.sha256(f"{seed} {pixels.shape} ".encode() + pixels.tobytes()).hexdigest()


def _divided(items: list[Item], held: set[int], evaluated: bool) -> Iterator[Item]:
    for i, item in enumerate(items):
        if i in held:
            if evaluated:
                yield replace(item, split="test")
        elif item.split == "train" or not evaluated:
            yield item
