"""Texts as ids of tokens. Imports no torch, so that students on devices use it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cdl.device.errors import CdlError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

ABSENT = -1  # the id that marks the absence of a token


def open_tokenizer(content: bytes, where: str, size: int | None = None) -> "Tokenizer":
    """Return a tokenizer that does not pad.

    Args:
        content: content of its tokenizer.json.
        where: subject of error messages.
        size: number of tokens after which a text is cut off; None: as the content says.

    Raises:
        CdlError: tokenizers is not installed, or the content cannot be read.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise CdlError(
            "texts need the package tokenizers, which is not installed: pip install tokenizers"
        ) from error
    try:
        made = Tokenizer.from_buffer(content)
    except Exception as error:  # tokenizers raises errors of type Exception
        raise CdlError(f"{where}: tokenizer.json cannot be read ({error})") from error
    made.no_padding()
    if size is not None:
        made.enable_truncation(size)
    return made


def ids_of(tokenizer: "Tokenizer", texts: Sequence[str], width: int | None = None) -> np.ndarray:
    """Return the ids of texts `[n, N]` int64, `ABSENT` after the end of a text.

    Args:
        tokenizer: see `open_tokenizer`.
        texts: one or more.
        width: `N`; None: the number of tokens of the longest text.
    """
    ids = [found.ids for found in tokenizer.encode_batch(list(texts))]
    rows = np.full((len(ids), width or max(map(len, ids))), ABSENT, np.int64)
    for row, own in zip(rows, ids, strict=True):
        row[: len(own)] = own
    return rows
