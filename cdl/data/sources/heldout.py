"""Hold out some training images of each class as validation images."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

from cdl.data.sources.items import Item, Source
from cdl.data.sources.summary import Summary
from cdl.runtime.errors import CdlError, Unreadable


def hold_out(source: Source, per_class: int, seed: int = 0, evaluated: bool = False) -> Source:
    """Return a source without the training images that are held out for validation.

    The images of a class are sorted by the sha256 of seed and pixels, and the first ones are held
    out, with all their copies. So the draw does not depend on names or order. It reads all
    training images once.

    Args:
        source: training images and test images.
        per_class: number of different images of each class to hold out.
        seed: of the draw, independent of the seeds of the runs.
        evaluated: whether the validation images replace the test images, which are then not read;
            otherwise the validation images are left out.

    Raises:
        CdlError: a class has no training image left.
    """
    items = list(source.items)
    found: dict[int, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for i, item in enumerate(items):
        if item.split == "train" and (place := _draw_key(item, seed)):
            found[item.label][place].append(i)
    held: set[int] = set()
    for label, places in sorted(found.items()):
        if len(places) <= per_class:
            raise CdlError(
                f"validation.per_class: {per_class} is too large: class {source.classes[label]!r} "
                f"has {len(places)} different training examples, and one must remain"
            )
        held.update(i for place in sorted(places)[:per_class] for i in places[place])
    return replace(source, items=list(_apply_draw(items, held, evaluated)))


def remaining(whole: Summary, per_class: int, seed: int = 0, evaluated: bool = False) -> Summary:
    """Return the summary of the source from `hold_out`, ignoring copies of images."""
    held = per_class * whole.n_classes
    images = {"train": whole.images["train"] - held, "test": whole.images["test"]}
    classes = whole.classes and {
        name: (train - per_class, per_class if evaluated else test)
        for name, (train, test) in whole.classes.items()
    }
    return replace(whole, images=images | ({"test": held} if evaluated else {}), classes=classes)


def _draw_key(item: Item, seed: int) -> str:
    """Return the sort key of an image in the draw; empty if the image is unreadable.

    Packing reports unreadable images.
    """
    try:
        pixels = item.read()
    except Unreadable:
        return ""
    return hashlib.sha256(f"{seed} {pixels.shape} ".encode() + pixels.tobytes()).hexdigest()


def _apply_draw(items: list[Item], held: set[int], evaluated: bool) -> Iterator[Item]:
    for i, item in enumerate(items):
        if i in held:
            if evaluated:
                yield replace(item, split="test")
        elif item.split == "train" or not evaluated:
            yield item
