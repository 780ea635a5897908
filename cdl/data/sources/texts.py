"""Sources of texts, which are checked and encoded as they are packed."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from cdl.data.sources.items import Item, Source
from cdl.device.reading import encode

MODALITY = "text"


class Text(NamedTuple):
    """A text with its split, its class and the place that gives it its name.

    `row` is where it is, for error messages; by default its name.
    """

    split: str
    label: str
    text: object
    place: str
    row: str = ""


def source_of(texts: Iterable[Text], classes: Sequence[str]) -> Source:
    """Return the source of some texts, whose names are `PLACE[i]`, counted in each place."""
    labels = {name: i for i, name in enumerate(classes)}
    return Source(tuple(classes), _items(texts, labels), modality=MODALITY)


def _items(texts: Iterable[Text], labels: dict[str, int]) -> Iterator[Item]:
    counts: Counter[str] = Counter()
    for split, label, text, place, row in texts:
        name = f"{place}[{counts[place]}]"
        counts[place] += 1
        yield Item(split, labels[label], name, partial(encode, text, row or name))
