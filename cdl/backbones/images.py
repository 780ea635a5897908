"""Frozen vision transformers with their normalisation, from artifacts of `fetch`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cdl.backbones import families
from cdl.backbones.frozen import Backbone
from cdl.backbones.inside import Inside, merged
from cdl.backbones.shape import BackboneShape
from cdl.backbones.vit import BlockInputs, Encoded, Injection, encode
from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError


class FrozenViT(Backbone):
    """Frozen ViT of timm with its input normalisation, which stays in fp32."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        vit: Any,
        mean: list[float],
        std: list[float],
        fingerprint: str,
        interpolation: str = "bilinear",
    ) -> None:
        """Freeze a ViT.

        Args:
            vit: a timm model that `cdl.backbones.families` accepts.
            mean: per channel, of images in 0..1; the ViT reads `(images - mean) / std`.
            std: per channel, see `mean`.
            fingerprint: sha256 of the ViT's tensors.
            interpolation: `bilinear` or `bicubic`, for views whose size differs from the input
                size.
        """
        size = int(vit.patch_embed.img_size[0])
        super().__init__(vit, int(vit.embed_dim), len(vit.blocks), size, fingerprint)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))
        self.interpolation = interpolation

    @classmethod
    def load(cls, path: str | Path, size: int, normalization: str) -> "FrozenViT":
        """Read a backbone artifact.

        Args:
            path: artifact that `fetch` wrote.
            size: side of the input in pixels; position embeddings are resampled if the weights
                were trained at another size.
            normalization: `backbone` (its own mean and std) or `unit` (images stay in 0..1).

        Raises:
            CdlError: the file is damaged, or the size is not a multiple of the patch size.
        """
        state, metadata = artifacts.load(path)
        vit = families.create(metadata.get("timm_model", families.PLAIN), metadata["architecture"])
        patch = families.shape_of(vit).patch or 1
        if size % patch:
            raise CdlError(
                f"view size {size} is not a multiple of the patch size {patch} "
                f"of {metadata['model']}"
            )
        try:
            vit.load_state_dict(state)
        except RuntimeError as error:
            raise CdlError(
                f"{path} was made by another version of cdl or timm; delete it and run again"
            ) from error
        vit.set_input_size(img_size=(size, size))
        unit = normalization == "unit"
        mean, std = ([0.0] * 3, [1.0] * 3) if unit else (metadata["mean"], metadata["std"])
        interpolation = metadata.get("interpolation", "bilinear")
        return cls(vit, mean, std, metadata["fingerprint"], interpolation)

    @property
    def shape(self) -> BackboneShape:
        """Shape of the ViT, which methods read."""
        return families.shape_of(self.model)

    def merged(self, inside: Inside) -> "FrozenViT":
        """Return a copy with plain weights that gives the features of `inside`, in fp32."""
        mean, std = self.mean.flatten().tolist(), self.std.flatten().tolist()
        vit = merged(self.model, inside)
        return FrozenViT(vit, mean, std, self.fingerprint, self.interpolation)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The blocks in order, into whose attention prompts are injected."""
        blocks: Sequence[nn.Module] = self.model.blocks
        return blocks

    @property
    def tokens(self) -> int:
        """Number of tokens of an input in every block, without appended ones."""
        return int(self.model.patch_embed.num_patches + self.model.num_prefix_tokens)

    @property
    def embedding(self) -> tuple[int, nn.Module]:
        """Number of tokens that are embedded by products of matrices, and their module."""
        return int(self.model.patch_embed.num_patches), self.model.patch_embed

    def blank(self, size: int) -> Tensor:
        """Return an input of `encode` without content, of a view of a given size."""
        return torch.zeros(1, 3, size, size, device=self.device)

    def encode(
        self,
        inputs: Tensor,
        injection: Injection | None = None,
        keep_blocks: int = 0,
        resume_from: BlockInputs | None = None,
        keep_inputs: bool = False,
    ) -> Encoded:
        """Normalise inputs, images `[B, 3, H, W]` in 0..1, and encode them, see `vit.encode`.

        Views of another size are resized first, so that all backbones see the same crop. The ViT
        computes in the dtype of its weights; tokens are returned in the dtype of the images.
        """
        dtype = inputs.dtype
        images = inputs if inputs.shape[-1] == self.size else self._resized(inputs)
        images = ((images - self.mean) / self.std).to(self.dtype)
        encoded = encode(self.model, images, injection, keep_blocks, resume_from, keep_inputs)
        blocks = tuple(block.to(dtype) for block in encoded.blocks)
        tokens, features = encoded.tokens.to(dtype), encoded.features.to(dtype)
        return Encoded(tokens, features, blocks, encoded.block_inputs)

    def _resized(self, images: Tensor) -> Tensor:
        mode = "bicubic" if self.interpolation == "bicubic" else "bilinear"
        size = (self.size, self.size)
        resized = F.interpolate(images, size, mode=mode, align_corners=False, antialias=True)
        return resized.clamp(0, 1)  # bicubic interpolation can overshoot 0..1
