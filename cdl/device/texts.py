"""Texts that a student takes, and the student that takes them."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np

from cdl.device.errors import CdlError
from cdl.device.items import BATCH, Items, check_new_name
from cdl.device.reading import encode, rows_of
from cdl.device.student import DeviceStudent
from cdl.device.tokens import ABSENT, ids_of, open_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER = "tokenizer.json"
COLUMNS = ("text", "label")  # of a CSV file that is learnt
TOKENS = (1, 16)  # of random texts


class Texts(Items):
    """Texts, which a tokenizer makes ids of tokens.

    Attributes:
        tokenizer: cuts off the end of long texts, and does not pad.
    """

    kind, argument, column = "texts", "TEXT", "text"
    given = "texts; -: one in each line of stdin"
    layout, path = f"a CSV file with the columns {' and '.join(COLUMNS)}", "FILE.csv"
    packages = ("tokenizers",)

    def __init__(self, tokenizer: "Tokenizer") -> None:
        """Keep the tokenizer."""
        self.tokenizer = tokenizer

    @classmethod
    def open(cls, folder: Path) -> "Texts":
        """Read the tokenizer of a folder; raise `CdlError` if it is missing or damaged."""
        file = folder / TOKENIZER
        try:
            content = file.read_bytes()
        except OSError as error:
            raise CdlError(f"{file}: cannot be read ({error.strerror})") from error
        return cls(open_tokenizer(content, str(folder)))

    def several(self, given: str | Iterable[str]) -> list[str]:
        """Return a list of texts, also for a single text."""
        return [given] if isinstance(given, str) else list(given)

    def batches(self, items: Sequence[str]) -> Iterator[tuple[list[int], list[str]]]:
        """Yield positions and texts of about the same length, up to `BATCH`."""
        texts = [checked(text) for text in items]
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            yield rows, [texts[i] for i in rows]

    def array(self, given: str | Iterable[str]) -> np.ndarray:
        """Return ids `[n, N]` int64, -1 after the end of a text."""
        texts = [checked(text) for text in self.several(given)]
        if not texts:
            raise CdlError("texts: there is none; expected at least one")
        ids = ids_of(self.tokenizer, texts)
        if not ids.size or (ids == ABSENT).all(1).any():
            raise CdlError("a text has no token that the tokenizer knows; expected words")
        return ids

    def listed(self, arguments: Sequence[str], stdin: TextIO) -> list[str]:
        """Return the texts on a command line; `-`: one in each line of stdin that is not blank.

        Raises:
            CdlError: one is the name of a file or folder.
        """
        found: list[str] = []
        for text in arguments:
            if os.path.exists(text):
                raise CdlError(f"{text}: is a file; expected a text, or - to read texts from stdin")
            found += _lines(stdin) if text == "-" else [text]
        return found

    @staticmethod
    def by_class(path: Path) -> dict[str, list[str]]:
        """Return the texts of each class in a CSV file with the columns `COLUMNS`.

        Raises:
            CdlError: the file cannot be read, lacks a column or has no row, or a text is blank.
        """
        found: dict[str, list[str]] = {}
        for text, name, place in rows_of(path, *COLUMNS):
            found.setdefault(check_new_name(name, place), []).append(checked(text, place))
        if not found:
            raise CdlError(f"{path}: contains no text; expected a row for each text")
        return found

    @staticmethod
    def unlabelled(path: Path) -> list[str]:
        """Return the lines of a text file in UTF-8 that are not blank."""
        try:
            found = _lines(path.read_text(encoding="utf-8-sig").splitlines())
        except (OSError, UnicodeDecodeError) as error:
            raise CdlError(f"{path}: cannot be read as text in UTF-8 ({error})") from error
        if not found:
            raise CdlError(f"{path}: contains no text; expected one in each line")
        return found

    def random(self, n: int, size: tuple[int, int] | None = None) -> list[str]:
        """Return texts of random words of the vocabulary; a size is 1 and a number of tokens."""
        tokenizer, (_, length) = self.tokenizer, size or TOKENS
        vocabulary = sorted(tokenizer.get_vocab(with_added_tokens=False).values())
        drawn = np.random.default_rng(n).choice(vocabulary, (n, 2 * length)).tolist()
        texts = (tokenizer.decode(ids) for ids in drawn)
        return [self._shortened(text, length) for text in texts]

    def _shortened(self, text: str, n: int) -> str:
        """Return the beginning of a text that has about `n` tokens, with those of start and end."""
        offsets = [last for _, last in self.tokenizer.encode(text).offsets if last][: max(1, n - 2)]
        return text[: offsets[-1]].strip() or "a" if offsets else "a"


class Student(DeviceStudent):
    """A student of texts in its folder; see `DeviceStudent`."""

    takes = Texts


def checked(text: str, where: str = "the text") -> str:
    """Return a text without space around it; raise `CdlError` if it is blank or no text."""
    return encode(text, where).tobytes().decode()


def _lines(lines: Iterable[str]) -> list[str]:
    return [line.strip() for line in lines if line.strip()]
