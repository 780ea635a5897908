"""Views of packed texts: UTF-8 bytes, from which words are left out in training."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cdl.data.packed import joined
from cdl.runtime.seeds import uniform
from cdl.spec import InputView

_VIEW = 202  # purpose of the counter-based draws
_WORDS = 256  # draws per text; the words after that many use them again


@dataclass(frozen=True)
class TextViews:
    """Training and test views of texts, `[B, n]` uint8: UTF-8, padded at the end with zeros.

    Attributes:
        drop: probability that a word is left out of a training view. At least one word is kept.
    """

    drop: float = 0.0

    @classmethod
    def of(cls, view: InputView) -> "TextViews":
        """Return the views of a specification."""
        return cls(view.to_json().get("drop", 0.0))

    @property
    def fixed(self) -> bool:
        """Whether no word is left out in training."""
        return not self.drop

    def train(self, items: Tensor, sizes: Tensor, keys: Tensor, seed: int, epoch: int) -> Tensor:
        """Return the training views of a batch, a pure function of (seed, key, epoch).

        Args:
            items: `[B, 1, 1, n]` uint8, padded with zeros.
            sizes: `[B, 2]`, 1 and the number of bytes of each.
            keys: `[B]` integers that depend on the text only, not on its index.
            seed: the run's seed.
            epoch: counted from 0.
        """
        if self.fixed:
            return self.test(items, sizes)
        draws = uniform((_VIEW, seed, epoch), keys, _WORDS).cpu()
        kept = [
            " ".join(_kept(text.split(), row, self.drop))
            for text, row in zip(decoded(self.test(items, sizes)), draws, strict=True)
        ]
        return encoded(kept).to(items.device)

    def test(self, items: Tensor, sizes: Tensor) -> Tensor:
        """Return the texts as they are (arguments as in `train`)."""
        return items[:, 0, 0]


def _kept(words: list[str], draws: Tensor, drop: float) -> list[str]:
    """Return the words that are kept: those with a draw of at least `drop`, or the highest."""
    own = draws[torch.arange(len(words)) % len(draws)]
    return [words[i] for i in torch.nonzero(own >= min(drop, float(own.max())))[:, 0].tolist()]


def encoded(texts: list[str]) -> Tensor:
    """Return texts as views `[B, n]` uint8, see `TextViews`."""
    rows = [torch.tensor(list(text.encode()), dtype=torch.uint8)[None] for text in texts]
    return joined(rows)


def decoded(views: Tensor) -> list[str]:
    """Return the texts of views, see `encoded`."""
    return [bytes(row).rstrip(b"\0").decode() for row in views.cpu().numpy()]
