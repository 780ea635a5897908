"""Check texts and encode them as they are packed."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from cdl.data.sources.items import Item, Source
from cdl.runtime.errors import Unreadable

if TYPE_CHECKING:
    import numpy as np

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


def encode(text: object, name: str) -> "np.ndarray":
    """Return a text as it is packed: its UTF-8 bytes `[1, n, 1]`, without space around it.

    Raises:
        Unreadable: it is not text, is blank, or contains NUL or half of a surrogate pair.
    """
    import numpy as np

    if not isinstance(text, str) or not text.strip():
        found = "no text" if text is None else f"{text!r:.50}"
        raise Unreadable(f"{name} contains {found}; expected a text that is not blank")
    try:
        raw = text.strip().encode()
    except UnicodeEncodeError as error:
        problem = f"{name} is not valid Unicode ({error.reason}): {text!r:.50}"
        raise Unreadable(problem) from error
    if b"\0" in raw:
        raise Unreadable(f"{name} contains a NUL character; remove it")
    return np.frombuffer(raw, np.uint8).reshape(1, -1, 1)


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
