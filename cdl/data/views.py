"""Views of packed images: seeded random crops and flips, and fixed test views.

A crop, its flip and its resize are a pair of small matrices per image, `out = Wy x Wx^T`, because
the image is sampled on a separable grid. `Wy` and `Wx` contain the weights of bilinear
interpolation, widened where the view shrinks the image (antialias). So a whole batch is two matrix
products on the device, and a view equals that of Pillow and torchvision up to their rounding to
uint8. For large images most weights are zero, which is slow on a CPU: there torch resizes the
images one by one.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from cdl.runtime.seeds import uniform
from cdl.spec import InputView

_VIEW = 201  # purpose of the counter-based draws
_ATTEMPTS = 10  # as in torchvision's RandomResizedCrop
_PRODUCTS = 32  # side in pixels up to which products are fast on a CPU


@dataclass(frozen=True)
class Views:
    """Training and test views of images, `[B, 3, size, size]` float32 in 0..1.

    Attributes:
        size: side of a view in pixels.
        crop_scale: range of the ratio of crop area to image area.
        crop_ratio: range of the crop's width over height.
        flip: probability of a horizontal flip.
        test_resize: short side in pixels to which the test view resizes the image before its
            centre crop; None resizes the whole image to `size` x `size`.
    """

    size: int
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    test_resize: int | None = None

    @classmethod
    def of(cls, view: InputView) -> "Views":
        """Return the views of a specification."""
        return cls(**view.to_json())

    @property
    def fixed(self) -> bool:
        """False: crops are random."""
        return False

    def train(self, images: Tensor, sizes: Tensor, keys: Tensor, seed: int, epoch: int) -> Tensor:
        """Return the training views of a batch, a pure function of (seed, key, epoch).

        Args:
            images: `[B, 3, H, W]` uint8.
            sizes: `[B, 2]` valid height and width of each.
            keys: `[B]` integers that depend on the image only, not on its index.
            seed: the run's seed.
            epoch: counted from 0.
        """
        draws = uniform((_VIEW, seed, epoch), keys, 4 * _ATTEMPTS + 1)
        boxes = self._crops(sizes, draws[:, :-1].unflatten(1, (_ATTEMPTS, 4)))
        return _sample(images, boxes, boxes, draws[:, -1] < self.flip, self.size)

    def test(self, images: Tensor, sizes: Tensor) -> Tensor:
        """Return the deterministic test views of a batch (arguments as in `train`)."""
        boxes, whole = self._test_boxes(sizes.double())
        unflipped = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        return _sample(images, boxes, whole, unflipped, self.size)

    def test_of_one_size(self, images: Tensor) -> Tensor:
        """Return the test views of images `[B, 3, H, W]` uint8 without padding.

        Operations depend on sizes only through tensors, so that an exported graph accepts images
        of any size.
        """
        height, width = images.shape[-2:]
        sides = [torch.ones(n, dtype=torch.float64).sum() for n in (height, width)]
        boxes, whole = self._test_boxes(torch.stack(sides)[None])
        rows = _weights(boxes[:, 0], boxes[:, 2], whole[:, 0], whole[:, 2], self.size, height)
        columns = _weights(boxes[:, 1], boxes[:, 3], whole[:, 1], whole[:, 3], self.size, width)
        return rows @ (images.float() / 255) @ columns.mT

    def _test_boxes(self, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the boxes of the test views, and of the whole images, `[B, 4]` each.

        `sizes` is `[B, 2]`; a box is top, left, height and width.
        """
        whole = torch.cat([torch.zeros_like(sizes), sizes], dim=1)
        if self.test_resize is None:
            return whole, whole
        resized = torch.floor(sizes * self.test_resize / sizes.amin(1, keepdim=True))
        scale = sizes / resized
        corner = torch.round((resized - self.size) / 2) * scale
        return torch.cat([corner, (self.size * scale).expand_as(corner)], dim=1), whole

    def _crops(self, sizes: Tensor, draws: Tensor) -> Tensor:
        """Return crops `[B, 4]` (top, left, height, width), the first attempt that fits."""
        height, width = sizes.double()[:, None, :].unbind(-1)  # [B, 1]
        low, high = self.crop_scale
        area = height * width * (low + (high - low) * draws[..., 0])
        log_low, log_high = (math.log(r) for r in self.crop_ratio)
        ratio = torch.exp(log_low + (log_high - log_low) * draws[..., 1])
        h, w = torch.round((area / ratio).sqrt()), torch.round((area * ratio).sqrt())
        fits = (h >= 1) & (h <= height) & (w >= 1) & (w <= width)
        top = torch.floor(draws[..., 2] * (height - h + 1))
        left = torch.floor(draws[..., 3] * (width - w + 1))
        boxes = torch.stack([top, left, h, w], dim=-1)  # [B, attempts, 4]
        chosen = boxes[torch.arange(len(boxes), device=boxes.device), fits.int().argmax(1)]
        return torch.where(fits.any(1)[:, None], chosen, self._centre(height, width))

    def _centre(self, height: Tensor, width: Tensor) -> Tensor:
        """Return the largest central crop `[B, 4]` with an allowed ratio."""
        low, high = self.crop_ratio
        w = torch.minimum(width, torch.round(height * high))
        h = torch.minimum(height, torch.round(width / low))
        top, left = torch.floor((height - h) / 2), torch.floor((width - w) / 2)
        return torch.cat([top, left, h, w], dim=1)


def _sample(images: Tensor, boxes: Tensor, bounds: Tensor, flip: Tensor, size: int) -> Tensor:
    """Resize boxes `[B, 4]` of images to `[B, 3, size, size]`; read inside bounds."""
    large = max(size, *images.shape[-2:]) > _PRODUCTS
    sample = _one_by_one if large and images.device.type == "cpu" else _products
    return sample(images, boxes, bounds, flip, size)


def _products(images: Tensor, boxes: Tensor, bounds: Tensor, flip: Tensor, size: int) -> Tensor:
    """Sample a whole batch at once."""
    height, width = images.shape[-2:]
    rows = _weights(boxes[:, 0], boxes[:, 2], bounds[:, 0], bounds[:, 2], size, height)
    columns = _weights(boxes[:, 1], boxes[:, 3], bounds[:, 1], bounds[:, 3], size, width)
    columns = torch.where(flip[:, None, None], columns.flip(1), columns)
    pixels = images.float() / 255
    return rows[:, None] @ pixels @ columns[:, None].transpose(-1, -2)


def _one_by_one(images: Tensor, boxes: Tensor, bounds: Tensor, flip: Tensor, size: int) -> Tensor:
    """Resize each image's bounds, then crop; equals `_products` up to 1e-4."""
    scale = size / boxes[:, 2:]
    resized = torch.round(bounds[:, 2:] * scale).int().tolist()
    corners = torch.round((boxes[:, :2] - bounds[:, :2]) * scale).int().tolist()
    views = images.new_empty((len(images), 3, size, size), dtype=torch.float32)
    pixels = images.new_empty(
        images[0].numel(), dtype=torch.float32
    )  # reused, because allocating it per image is slow
    flipped = flip.tolist()
    for i, (top, left, height, width) in enumerate(bounds.int().tolist()):
        part = pixels[: 3 * height * width].view(height, width, 3).permute(2, 0, 1)
        torch.div(images[i, :, top : top + height, left : left + width], 255, out=part)
        whole = F.interpolate(part[None], resized[i], mode="bilinear", antialias=True)
        row, column = corners[i]
        view = whole[0, :, row : row + size, column : column + size]
        views[i] = view.flip(-1) if flipped[i] else view
    return views


def _weights(
    start: Tensor, extent: Tensor, first: Tensor, count: Tensor, size: int, length: int
) -> Tensor:
    """Return weights `[B, size, length]` that resize `extent` pixels from `start`."""
    scale = (extent / size)[:, None, None]
    out = torch.arange(size, device=start.device, dtype=torch.float64)[None, :, None]
    pixel = torch.arange(length, device=start.device, dtype=torch.float64)[None, None, :]
    centre = start[:, None, None] + (out + 0.5) * scale
    weights = (1 - (pixel + 0.5 - centre).abs() / scale.clamp_min(1)).clamp_min(0)
    inside = (pixel >= first[:, None, None]) & (pixel < (first + count)[:, None, None])
    weights = weights * inside
    return (weights / weights.sum(-1, keepdim=True)).float()
