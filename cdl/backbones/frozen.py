"""A frozen vision transformer with its input normalisation, read from an artifact of `fetch`."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cdl.backbones import families
from cdl.backbones.shape import BackboneShape
from cdl.backbones.vit import Encoded, Injection, encode
from cdl.runtime import artifacts
from cdl.runtime.compute import Compute
from cdl.runtime.errors import CdlError


class Backbone(nn.Module):
    """A frozen ViT in eval mode with its input normalisation.

    Attributes:
        width: embedding width `D`.
        depth: number of blocks.
        size: side of its input in pixels.
        fingerprint: sha256 of its tensors.
    """

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
            mean: with `std` it normalises images in 0..1, per channel.
            std: see `mean`.
            fingerprint: of its tensors.
            interpolation: `bilinear` or `bicubic`, of views of another size than its input.
        """
        super().__init__()
        self.vit = vit.requires_grad_(False)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))
        self.width: int = vit.embed_dim
        self.depth: int = len(vit.blocks)
        self.size: int = vit.patch_embed.img_size[0]
        self.fingerprint, self.interpolation = fingerprint, interpolation
        self.eval()

    @classmethod
    def load(cls, path: str | Path, image_size: int, normalization: str) -> "Backbone":
        """Read a backbone artifact.

        Args:
            path: written by `fetch`.
            image_size: side of its input; its positions are resampled if it was trained at another.
            normalization: `backbone` (its own mean and std) or `unit` (images stay in 0..1).

        Raises:
            CdlError: the file is damaged, or the size is no multiple of the patch size.
        """
        state, metadata = artifacts.load(path)
        vit = families.create(metadata.get("timm_model", families.PLAIN), metadata["architecture"])
        patch = families.shape_of(vit).patch or 1
        if image_size % patch:
            raise CdlError(
                f"view size {image_size} is not a multiple of the patch size {patch} "
                f"of {metadata['model']}"
            )
        try:
            vit.load_state_dict(state)
        except RuntimeError as error:
            raise CdlError(
                f"{path} was made by another version of cdl or timm; delete it and run again"
            ) from error
        vit.set_input_size(img_size=(image_size, image_size))
        unit = normalization == "unit"
        mean, std = ([0.0] * 3, [1.0] * 3) if unit else (metadata["mean"], metadata["std"])
        interpolation = metadata.get("interpolation", "bilinear")
        return cls(vit, mean, std, metadata["fingerprint"], interpolation)

    @property
    def shape(self) -> BackboneShape:
        """What methods know of it."""
        return families.shape_of(self.vit)

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

        Views of another size are resized first, so that all backbones see the same crop. The ViT
        computes in the type of its weights; tokens come back in the images' type.
        """
        if images.shape[-1] != self.size:
            images = self._resized(images)
        inputs = ((images - self.mean) / self.std).to(self.dtype)
        encoded = encode(self.vit, inputs, injection, keep_blocks)
        given = images.dtype
        blocks = tuple(block.to(given) for block in encoded.blocks)
        return Encoded(encoded.tokens.to(given), encoded.features.to(given), blocks)

    def _resized(self, images: Tensor) -> Tensor:
        mode = "bicubic" if self.interpolation == "bicubic" else "bilinear"
        size = (self.size, self.size)
        resized = F.interpolate(images, size, mode=mode, align_corners=False, antialias=True)
        return resized.clamp(0, 1)  # bicubic weights may leave 0..1

    @property
    def dtype(self) -> torch.dtype:
        """Type of the ViT's weights."""
        found: torch.dtype = next(self.vit.parameters()).dtype
        return found

    @torch.no_grad()
    def query(self, images: Tensor) -> Tensor:
        """Return the query `[B, D]`: the pooled feature without prompts."""
        return self.encode(images).features[:, 0]
