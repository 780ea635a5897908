"""The student of a finished run on texts, and the graph of its export."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cdl.backbones.encoders import Encoder
from cdl.deployment.graph import OUTPUT, PRODUCTS, Graph
from cdl.deployment.model import Model
from cdl.deployment.trained import TrainedStudent
from cdl.device.texts import TOKENIZER, TOKENS, Texts
from cdl.device.tokens import ABSENT, open_tokenizer
from cdl.runtime.errors import CdlError


class TextGraph(Graph):
    """Ids of tokens `[B, N]` int64, -1 after the end of a text, to logits `[B, C]`."""

    name, free = "ids", ("batch", "tokens")
    quantised = (*PRODUCTS, "Gather")  # the table of embeddings is most of a small encoder

    def example(self) -> Tensor:
        """Return two texts of unequal length."""
        return torch.where(torch.arange(7) < torch.tensor([[7], [5]]), 1, ABSENT)


@dataclass(frozen=True)
class TextStudent(TrainedStudent):
    """A learner of texts after one of its tasks, in fp32 on the CPU."""

    @property
    def backbone(self) -> Encoder:
        """The encoder, whose tokens the query reads, too.

        Raises:
            CdlError: the query of the prompts needs another backbone, whose tokens differ.
        """
        found, query = self.model.learner.backbone, self.model.query
        if {id(q) for q in (query, self.model.teacher_query) if q is not None} - {id(found)}:
            raise CdlError(
                f"{self.files.folder}: the query of its prompts is from another backbone than its "
                "own, whose tokens differ; expected the run of a student with protocol.query: "
                "student"
            )
        assert isinstance(found, Encoder), "a backbone of the modality"
        return found

    @cached_property
    def items(self) -> Texts:  # type: ignore[override]
        """Texts with the tokenizer of the encoder."""
        backbone = self.backbone
        return Texts(open_tokenizer(backbone.tokenizer, self.files.folder, backbone.size))

    @property
    def random_size(self) -> tuple[int, int]:
        """Size of random items for times: a number of tokens."""
        return 1, min(TOKENS[1], self.backbone.size)

    @property
    def counted_size(self) -> int:
        """Number of tokens of the text whose operations are counted."""
        return self.random_size[1]

    @property
    def timed(self) -> str:  # type: ignore[override]
        """Remark on the texts that are timed and counted."""
        return f", for a text of {self.random_size[1]} tokens"

    def graph(self, model: Model) -> Graph:
        """Return the graph of an export."""
        return TextGraph(model)

    def preprocessing(self, executorch: bool = False) -> dict[str, Any]:
        """Return the content of preprocessing.json: the input of the graph."""
        most = self.backbone.size
        return {
            "modality": self.spec.view.modality,
            "input": {"name": TextGraph.name, "type": "int64", "axes": list(TextGraph.free)},
            "output": OUTPUT,
            "before": f"ids by {TOKENIZER}, at most {most}; {ABSENT} after the end of a text",
        }

    def files_beside(self) -> Mapping[str, bytes]:
        """Return the tokenizer, which cuts off the end of long texts."""
        return {TOKENIZER: self.items.tokenizer.to_str().encode()}

    def unpacked(self, item: np.ndarray) -> str:
        """Return a text from its packed bytes `[1, n, 1]`."""
        return item.tobytes().decode()

    def preprocess(self, given: str | Iterable[str]) -> Tensor:  # type: ignore[override]
        """Return the ids of the tokens of texts, `[n, N]`; raise `CdlError` for a blank text."""
        return torch.from_numpy(self.items.array(given))
