"""A frozen vision transformer with its input normalisation, read from an artifact of `fetch`.

On a CPU its products in fp32 are oneDNN's: torch hands them to MKL, which takes twice the time on
some CPUs (docs/performance.md), while weights that never change can be packed for oneDNN, once for
each direction. The operators are those that `torch.compile` calls; a torch without them multiplies
as it always does, the same up to rounding.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cdl.backbones import families
from cdl.backbones.shape import BackboneShape
from cdl.backbones.vit import Begun, Encoded, Injection, encode
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
        if compute.device.type == "cpu":
            pack(self.vit)
        return self

    def train(self, mode: bool = True) -> "Backbone":
        """Stay in eval mode whatever is asked: a frozen backbone has no training mode."""
        return super().train(False)

    def encode(
        self,
        images: Tensor,
        injection: Injection | None = None,
        keep_blocks: int = 0,
        begun: Begun | None = None,
        begin: bool = False,
    ) -> Encoded:
        """Normalise images `[B, 3, H, W]` in 0..1 and encode them (see `cdl.backbones.vit.encode`).

        Views of another size are resized first, so that all backbones see the same crop. The ViT
        computes in the type of its weights; tokens come back in the images' type.
        """
        if images.shape[-1] != self.size:
            images = self._resized(images)
        inputs = ((images - self.mean) / self.std).to(self.dtype)
        encoded = encode(self.vit, inputs, injection, keep_blocks, begun, begin)
        given = images.dtype
        blocks = tuple(block.to(given) for block in encoded.blocks)
        tokens, features = encoded.tokens.to(given), encoded.features.to(given)
        return Encoded(tokens, features, blocks, encoded.begun)

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


class PackedLinear(nn.Module):
    """A frozen linear map on a CPU, in fp32."""

    def __init__(self, linear: nn.Linear) -> None:
        """Pack the weights `[D', D]` of a map that is not trained."""
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias  # some families of timm read them
        self._forth = _packed(linear.weight)
        self._back: Tensor | None = None  # packed when a gradient is first asked for

    def forward(self, x: Tensor) -> Tensor:
        """Return `x W^T + b`, `[..., D']`, for `x [..., D]`."""
        if not (torch.is_grad_enabled() and x.requires_grad):
            return _product(x, self._forth, self.bias)
        if self._back is None:
            self._back = _packed(self.weight.mT)
        product: Tensor = _Product.apply(  # type: ignore[no-untyped-call]
            x, self._forth, self._back, self.bias
        )
        return product


class _Product(torch.autograd.Function):
    """The product, with a gradient for its input alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, forth: Tensor, back: Tensor, bias: Tensor | None) -> Tensor:
        ctx.back = back
        return _product(x, forth, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _product(gradient, ctx.back, None), None, None, None


def pack(vit: nn.Module) -> None:
    """Pack the frozen linear maps of a model in place, if they are in fp32 and torch can do it."""
    if not available():
        return
    for parent in vit.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.Linear) and not child.weight.requires_grad:
                if child.weight.dtype == torch.float32:
                    setattr(parent, name, PackedLinear(child))


def available() -> bool:
    """Whether this torch was built with oneDNN and its operators for packed weights."""
    operators = torch.ops.mkldnn
    names = ("_reorder_linear_weight", "_linear_pointwise")
    return torch.backends.mkldnn.is_available() and all(hasattr(operators, n) for n in names)


def _packed(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous())
    return packed


def _product(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(
        x.contiguous(), packed, bias, "none", [], ""
    )
    return product
