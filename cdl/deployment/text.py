"""The student of a finished run on texts."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TextIO

import numpy as np
from torch import Tensor

from cdl.data.sources.texts import encode
from cdl.data.text import encoded
from cdl.deployment.device.classifier import BATCH, probabilities
from cdl.deployment.trained import TrainedStudent
from cdl.runtime.errors import CdlError


@dataclass(frozen=True)
class TextStudent(TrainedStudent):
    """A learner of texts after one of its tasks, in fp32 on the CPU.

    `predict`, `predict_proba` and `best` accept a text or several, as `str`.
    """

    def preprocess(self, texts: str | Iterable[str]) -> Tensor:  # type: ignore[override]
        """Return the ids of the tokens of texts, `[n, N]`.

        Raises:
            CdlError: a text is blank, or the query of the prompts needs another backbone, whose
                tokens differ.
        """
        backbone, query = self.model.learner.backbone, self.model.query
        others = {id(q) for q in (query, self.model.teacher_query) if q is not None}
        if others - {id(backbone)}:
            raise CdlError(
                f"{self.files.folder}: the query of its prompts is from another backbone than its "
                "own, whose tokens differ; expected the run of a student"
            )
        checked = [encode(text, "the text").tobytes().decode() for text in several(texts)]
        return backbone.prepare(encoded(checked))

    def predict_proba(self, texts: str | Iterable[str]) -> np.ndarray:  # type: ignore[override]
        """Return probabilities `[n, C]` of all classes, in fp32; see `preprocess`."""
        every = several(texts)
        parts = [every[i : i + BATCH] for i in range(0, len(every), BATCH)]
        logits = [self.logits(self.preprocess(part)) for part in parts]
        empty = np.zeros((0, len(self.classes)), np.float32)
        return probabilities(np.concatenate([empty, *logits]))

    def arguments(self, given: Sequence[str], stdin: TextIO) -> list[str]:
        """Return the texts on the command line of `cdl predict`; `-`: one in each line of stdin."""
        return list(_lines(given, stdin))


def several(texts: str | Iterable[str]) -> list[str]:
    """Return a list of texts, also for a single text."""
    return [texts] if isinstance(texts, str) else list(texts)


def _lines(given: Sequence[str], stdin: TextIO) -> Iterator[str]:
    for text in given:
        if text == "-":
            yield from (line.rstrip("\n") for line in stdin if line.strip())
        else:
            yield text
