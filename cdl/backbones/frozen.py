"""The interface of frozen backbones of all modalities."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from cdl.backbones.inside import Inside
from cdl.backbones.packing import pack
from cdl.backbones.shape import BackboneShape
from cdl.backbones.vit import BlockInputs, Encoded, Injection
from cdl.runtime.compute import Compute


class Backbone(nn.Module, ABC):
    """Frozen network in eval mode, from views of items to tokens.

    Attributes:
        model: the network itself.
        width: embedding width `D`.
        depth: number of blocks; 0 if it has only a pooled feature.
        size: size of its input: side in pixels, or largest number of tokens.
        fingerprint: sha256 of its tensors.
    """

    def __init__(self, model: Any, width: int, depth: int, size: int, fingerprint: str) -> None:
        """Freeze a network; for the arguments see the attributes."""
        super().__init__()
        self.model = model.requires_grad_(False)
        self.width, self.depth, self.size, self.fingerprint = width, depth, size, fingerprint
        self.eval()

    @classmethod
    @abstractmethod
    def load(cls, path: str | Path, size: int, normalization: str) -> "Backbone":
        """Read an artifact that `cdl.backbones.fetch` wrote.

        Args:
            path: the artifact.
            size: see the attributes.
            normalization: of images: `backbone` (its own mean and std) or `unit` (0..1).

        Raises:
            CdlError: the file is damaged, or the backbone has no input of this size.
        """

    @property
    @abstractmethod
    def shape(self) -> BackboneShape:
        """Its shape, which methods read."""

    @property
    @abstractmethod
    def blocks(self) -> Sequence[nn.Module]:
        """The blocks in order, into whose attention prompts are injected."""

    @property
    @abstractmethod
    def tokens(self) -> int:
        """Largest number of tokens of an input in a block, without appended ones."""

    @property
    @abstractmethod
    def outside(self) -> float:
        """Operations for one input outside the blocks, a multiply-add counted as two."""

    @abstractmethod
    def merged(self, inside: Inside) -> "Backbone":
        """Return a copy with plain weights that gives the features of `inside`, in fp32."""

    @abstractmethod
    def blank(self, size: int) -> Tensor:
        """Return an input of `encode` without content, of a view of a given size."""

    @abstractmethod
    def encode(
        self,
        inputs: Tensor,
        injection: Injection | None = None,
        keep_blocks: int = 0,
        resume_from: BlockInputs | None = None,
        keep_inputs: bool = False,
    ) -> Encoded:
        """Encode what `prepare` returned, see `cdl.backbones.vit.encode`."""

    def prepare(self, views: Tensor) -> Tensor:
        """Return the input of `encode` and `query` for views, by default the views themselves.

        Unlike `encode`, this is never part of a captured or exported graph.
        """
        return views

    @torch.no_grad()
    def query(self, inputs: Tensor) -> Tensor:
        """Return the query `[B, D]`, the pooled feature without prompts."""
        return self.encode(inputs).features[:, 0]

    def place(self, compute: Compute) -> Self:
        """Move to a device, with the network in its precision."""
        self.to(compute.device)
        self.model.to(compute.dtype)
        if compute.device.type == "cpu":
            pack(self.model)
        return self

    def train(self, mode: bool = True) -> Self:
        """Ignore `mode` and stay in eval mode: a frozen backbone has no training mode."""
        return super().train(False)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        found: torch.device = next(self.model.parameters()).device
        return found

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        found: torch.dtype = next(self.model.parameters()).dtype
        return found
