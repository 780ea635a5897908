"""A frozen vision transformer with its input normalisation, read from an artifact of `fetch`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from cdl.backbones.vit import Encoded, Injection, encode
from cdl.runtime import artifacts
from cdl.runtime.compute import Compute
from cdl.runtime.errors import CdlError


def build_vit(architecture: Mapping[str, Any]) -> VisionTransformer:
    """Return timm's ViT of an architecture (its keyword arguments), without a head."""
    return VisionTransformer(**architecture, num_classes=0)


class Backbone(nn.Module):
    """A frozen ViT in eval mode with its input normalisation.

    Attributes:
        width: embedding width `D`.
        depth: number of blocks.
        fingerprint: sha256 of its tensors.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, vit: VisionTransformer, mean: list[float], std: list[float], fingerprint: str
    ) -> None:
        """Freeze a ViT; `mean` and `std` normalise images in 0..1, per channel."""
        super().__init__()
        self.vit = vit.requires_grad_(False)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))
        self.width: int = vit.embed_dim
        self.depth: int = len(vit.blocks)
        self.fingerprint = fingerprint
        self.eval()

    @classmethod
    def load(cls, path: str | Path, image_size: int, normalization: str) -> "Backbone":
        """Read a backbone artifact.

        Args:
            path: written by `fetch`.
            image_size: side of the views; the position embedding is resampled if it differs.
            normalization: `backbone` (its own mean and std) or `unit` (images stay in 0..1).

        Raises:
            CdlError: the file is damaged, or the size is no multiple of the patch size.
        """
        state, metadata = artifacts.load(path)
        architecture = metadata["architecture"]
        if image_size % architecture["patch_size"]:
            raise CdlError(
                f"view size {image_size} is not a multiple of the patch size "
                f"{architecture['patch_size']} of {metadata['model']}"
            )
        vit = build_vit(architecture)
        vit.load_state_dict(state)
        vit.set_input_size(img_size=(image_size, image_size))
        unit = normalization == "unit"
        mean, std = ([0.0] * 3, [1.0] * 3) if unit else (metadata["mean"], metadata["std"])
        return cls(vit, mean, std, metadata["fingerprint"])

    def place(self, compute: Compute) -> "Backbone":
        """Move to a device, the ViT's weights in its precision; normalisation stays fp32."""
        self.to(compute.device)
        self.vit.to(compute.dtype)
        return self

    def train(self, mode: bool = True) -> "Backbone":
        """Stay in eval mode whatever is asked: a frozen backbone has no training mode."""
        return super().train(False)

    def encode(
        self, images: Tensor, injection: Injection | None = None, keep_blocks: int = 0
    ) -> Encoded:
        """Normalise images `[B, 3, H, W]` in 0..1 and encode them (see `cdl.backbones.vit.encode`).

        The ViT computes in the type of its weights; tokens come back in the images' type.
        """
        inputs = ((images - self.mean) / self.std).to(next(self.vit.parameters()).dtype)
        encoded = encode(self.vit, inputs, injection, keep_blocks)
        blocks = tuple(block.to(images.dtype) for block in encoded.blocks)
        return Encoded(encoded.tokens.to(images.dtype), blocks)

    @torch.no_grad()
    def query(self, images: Tensor) -> Tensor:
        """Return the query `[B, D]`: the class token without prompts, after the final norm."""
        return self.encode(images).tokens[:, 0]
