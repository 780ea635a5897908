"""Frozen backbones of images with their normalisation, from artifacts of `fetch`."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cdl.backbones import families
from cdl.backbones.frozen import Backbone
from cdl.backbones.inside import Inside, merged
from cdl.backbones.packing import multiplied
from cdl.backbones.shape import BackboneShape
from cdl.backbones.vit import BlockInputs, Encoded, Injection, encode
from cdl.runtime import artifacts, registry
from cdl.runtime.errors import CdlError

_EXTRACTOR = "cdl.backbones.extractor:FeatureExtractor"
FEATURES = "features"  # entry of the metadata of artifacts of which only features are read


class ImageBackbone(Backbone):
    """Frozen network of images in 0..1 with its input normalisation, which stays in fp32."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: Any,
        width: int,
        depth: int,
        size: int,
        normalization: tuple[list[float], list[float]],
        fingerprint: str,
        interpolation: str,
    ) -> None:
        """Freeze a network.

        Args:
            model: a model of timm.
            width: see `Backbone`.
            depth: see `Backbone`.
            size: side of its input in pixels.
            normalization: mean and std per channel; the network reads `(images - mean) / std`.
            fingerprint: sha256 of its tensors.
            interpolation: `bilinear` or `bicubic`, for views whose size differs from the input
                size.
        """
        super().__init__(model, width, depth, size, fingerprint)
        mean, std = normalization
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))
        self.interpolation = interpolation

    @classmethod
    def load(cls, path: str | Path, size: int, normalization: str) -> "ImageBackbone":
        """Read an artifact of a ViT or of a model of which only features are read.

        Args:
            path: artifact that `fetch` wrote.
            size: side of the input in pixels; position embeddings are resampled if the weights
                were trained at another size.
            normalization: `backbone` (its own mean and std) or `unit` (images stay in 0..1).

        Raises:
            CdlError: the file is damaged, or the model has no input of this size.
        """
        state, metadata = artifacts.load(path)
        kind: type[ImageBackbone] = cls if issubclass(cls, FrozenViT) else FrozenViT
        if metadata.get(FEATURES):
            kind = registry.load(_EXTRACTOR)
        unit = normalization == "unit"
        given = ([0.0] * 3, [1.0] * 3) if unit else (metadata["mean"], metadata["std"])
        try:
            return kind.of(state, metadata, size, given)
        except RuntimeError as error:
            raise CdlError(
                f"{path} was made by another version of cdl or timm; delete it and run again"
            ) from error

    @classmethod
    @abstractmethod
    def of(
        cls,
        state: Mapping[str, Tensor],
        metadata: Mapping[str, Any],
        size: int,
        normalization: tuple[list[float], list[float]],
    ) -> Self:
        """Build a network from the content of an artifact; see `load`.

        Raises:
            CdlError: the model has no input of this size.
            RuntimeError: the tensors are not those of the model.
        """

    def blank(self, size: int) -> Tensor:
        """Return an input of `encode` without content, of a view of a given size."""
        return torch.zeros(1, 3, size, size, device=self.device)

    def normalized(self, images: Tensor) -> Tensor:
        """Return the network's input, in the dtype of its weights.

        Views of another size are resized first, so that all backbones see the same crop.
        """
        images = images if images.shape[-1] == self.size else self._resized(images)
        return ((images - self.mean) / self.std).to(self.dtype)

    def _resized(self, images: Tensor) -> Tensor:
        mode = "bicubic" if self.interpolation == "bicubic" else "bilinear"
        size = (self.size, self.size)
        resized = F.interpolate(images, size, mode=mode, align_corners=False, antialias=True)
        return resized.clamp(0, 1)  # bicubic interpolation can overshoot 0..1


class FrozenViT(ImageBackbone):
    """Frozen ViT of timm, with prompts in its attention."""

    def __init__(
        self,
        vit: Any,
        mean: list[float],
        std: list[float],
        fingerprint: str,
        interpolation: str = "bilinear",
    ) -> None:
        """Freeze a ViT that `cdl.backbones.families` accepts; see `ImageBackbone`."""
        size = int(vit.patch_embed.img_size[0])
        width, depth = int(vit.embed_dim), len(vit.blocks)
        super().__init__(vit, width, depth, size, (mean, std), fingerprint, interpolation)

    @classmethod
    def of(
        cls,
        state: Mapping[str, Tensor],
        metadata: Mapping[str, Any],
        size: int,
        normalization: tuple[list[float], list[float]],
    ) -> Self:
        """Build a ViT; raise `CdlError` if the size is not a multiple of the patch size."""
        vit = families.create(metadata.get("timm_model", families.PLAIN), metadata["architecture"])
        patch = families.shape_of(vit).patch or 1
        if size % patch:
            raise CdlError(
                f"view size {size} is not a multiple of the patch size {patch} "
                f"of {metadata['model']}"
            )
        vit.load_state_dict(state)
        vit.set_input_size(img_size=(size, size))
        interpolation = metadata.get("interpolation", "bilinear")
        return cls(vit, *normalization, metadata["fingerprint"], interpolation)

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
    def outside(self) -> float:
        """Operations for one input outside the blocks: the embedding of its patches."""
        embed = self.model.patch_embed
        return 2.0 * int(embed.num_patches) * multiplied(embed)

    def encode(
        self,
        inputs: Tensor,
        injection: Injection | None = None,
        keep_blocks: int = 0,
        resume_from: BlockInputs | None = None,
        keep_inputs: bool = False,
    ) -> Encoded:
        """Normalise inputs, images `[B, 3, H, W]` in 0..1, and encode them, see `vit.encode`.

        The ViT computes in the dtype of its weights; tokens are returned in the dtype of the
        images.
        """
        dtype, images = inputs.dtype, self.normalized(inputs)
        encoded = encode(self.model, images, injection, keep_blocks, resume_from, keep_inputs)
        blocks = tuple(block.to(dtype) for block in encoded.blocks)
        tokens, features = encoded.tokens.to(dtype), encoded.features.to(dtype)
        return Encoded(tokens, features, blocks, encoded.block_inputs)
