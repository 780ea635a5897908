"""Packed images as tensors: a split on the disk, and images of it on a device."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cdl.data.packing import check_images, map_pixels, modality_in, read_index

_PART = 8  # small, because images of different sizes are padded to the largest of a part


@dataclass(frozen=True)
class Pixels:
    """Selected images of one split, addressed by their position in the selection.

    Attributes:
        flat: `[bytes]` uint8 on the device, images `[H, W, 3]` one after another; on the CPU it is
            the memory-mapped file.
        offsets: `[n]` first byte of each image, on the CPU.
        sizes: `[n, 2]` height and width, on the CPU.
        indices: `[n]` indices in the split, on the CPU.
        keys: `[n]` keys that depend on the image only, for the draws of its views; on the CPU.
        channels: bytes of each of the height x width units, 3 for RGB.
    """

    flat: Tensor
    offsets: Tensor
    sizes: Tensor
    indices: Tensor
    keys: Tensor
    channels: int = 3

    def __len__(self) -> int:
        return len(self.indices)

    @cached_property
    def uniform(self) -> bool:
        """Whether all images in `flat` have the size of these images."""
        one = bool((self.sizes == self.sizes[0]).all())
        nbytes = self.channels * int(self.sizes[0].prod())
        return one and len(self.flat) % nbytes == 0 and not (self.offsets % nbytes).any()

    @property
    def device(self) -> torch.device:
        """Device of the images."""
        return self.flat.device

    def grouped(self, positions: Tensor) -> Tensor:
        """Return positions in the order in which `parts` yields them; here unchanged."""
        return positions

    def on(self, device: torch.device | str) -> "Pixels":
        """Return these images for a device: memory-mapped on the CPU, a copy on a GPU."""
        return self if torch.device(device).type == "cpu" else self.resident(device)

    def resident(self, device: torch.device | str) -> "Pixels":
        """Return a copy of these images on a device, without the rest of the split."""
        lengths = self.channels * self.sizes.prod(1)
        images = zip(self.offsets.tolist(), lengths.tolist(), strict=True)
        flat = torch.cat([self.flat[start : start + length] for start, length in images])
        return replace(self, flat=flat.to(device), offsets=lengths.cumsum(0) - lengths)

    def parts(self, positions: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield the images at positions `[B]` (on the CPU) in one or several parts.

        Yields:
            On the device: images `[b, C, H, W]` uint8, padded at the bottom and right if their
            sizes differ, sizes `[b, 2]` and keys `[b]`.
        """
        for some in positions.split(len(positions) if self.uniform else _PART):
            batch = self._uniform(some) if self.uniform else self._padded(some)
            sizes, keys = (upload(t[some], self.flat.device) for t in (self.sizes, self.keys))
            yield batch.permute(0, 3, 1, 2), sizes, keys

    def _uniform(self, positions: Tensor) -> Tensor:
        height, width = self.sizes[0].tolist()
        images = self.flat.view(-1, height, width, self.channels)
        rows = self.offsets[positions] // (self.channels * height * width)
        return images[upload(rows, self.flat.device)]

    def _padded(self, positions: Tensor) -> Tensor:
        sizes = self.sizes[positions]
        images = self.flat.new_zeros(len(positions), *sizes.amax(0).tolist(), self.channels)
        rows = zip(images, self.offsets[positions].tolist(), sizes.tolist(), strict=True)
        for image, start, (height, width) in rows:
            flat = self.flat[start : start + self.channels * height * width]
            image[:height, :width] = flat.view(height, width, self.channels)
        return images


@dataclass(frozen=True)
class JoinedPixels:
    """Images of one split, then unlabelled ones of another, also of other sizes."""

    own: Pixels
    unlabelled: Pixels

    def __len__(self) -> int:
        return len(self.own) + len(self.unlabelled)

    @property
    def device(self) -> torch.device:
        """Device of the images."""
        return self.own.device

    @property
    def indices(self) -> Tensor:
        """Indices `[n]` of all images in their splits, see `Pixels`."""
        return torch.cat([self.own.indices, self.unlabelled.indices])

    def grouped(self, positions: Tensor) -> Tensor:
        """Return positions `[B]`, sorted stably so that those of own images are first."""
        return positions[torch.argsort((positions >= len(self.own)).byte(), stable=True)]

    def on(self, device: torch.device | str) -> "JoinedPixels":
        """Return these images for a device, see `Pixels.on`."""
        return JoinedPixels(self.own.on(device), self.unlabelled.on(device))

    def parts(self, positions: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield images as `Pixels.parts` does; positions must be `grouped`."""
        n = int((positions < len(self.own)).sum())
        for pixels, some in ((self.own, positions[:n]), (self.unlabelled, positions[n:])):
            if len(some):
                yield from pixels.parts(some if pixels is self.own else some - len(self.own))


class Packed:
    """One split of a packed folder.

    Attributes:
        labels: `[N]` int64, as in the source.
        names: `[N]` file names.
        classes: names of the classes by label.
        keys: `[N]` int64, the first 32 bits of each image's sha256.
        fingerprint: sha256 of the whole split.
        about: entry of the split in the manifest, see `read_index`.
    """

    def __init__(self, folder: str | Path, split: str) -> None:
        """Open a split and verify its index; `pixels` verifies images.

        Raises:
            CdlError: a file is missing or differs from the manifest.
        """
        self._folder, self._split = folder, split
        self._index, about, self.classes = read_index(folder, split)
        self._modality = modality_in(folder)
        self.fingerprint: str = about["sha256"]
        self.about = about
        self._pixels = map_pixels(folder, split)
        self.labels = torch.from_numpy(self._index["label"].to_numpy(np.int64, copy=True))
        self.names = self._index["name"].to_numpy()
        first = b"".join(sha256[:4] for sha256 in self._index["sha256"])
        self.keys = torch.from_numpy(np.frombuffer(first, "<u4").astype(np.int64))

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, indices: Tensor) -> Pixels:
        """Return and verify images by their indices `[n]` in the split, on the CPU.

        Raises:
            CdlError: an image is damaged; the message contains its name.
        """
        index = self._index.iloc[indices.numpy()]
        check_images(self._folder, self._split, index, self._pixels, self._modality)
        offsets, sizes = (
            torch.from_numpy(index[columns].to_numpy(np.int64, copy=True))
            for columns in ("offset", ["height", "width"])
        )
        flat, keys = torch.from_numpy(self._pixels), self.keys[indices]
        return Pixels(flat, offsets, sizes, indices, keys, self._modality.channels)


def joined(parts: list[Tensor]) -> Tensor:
    """Concatenate parts of a batch, padded with zeros to the size of the largest.

    A single part is returned without a copy.
    """
    if len(parts) == 1:
        return parts[0]
    sizes = [part.shape[1:] for part in parts]
    if len(set(sizes)) > 1:
        largest = [max(side) for side in zip(*sizes, strict=True)]
        parts = [F.pad(part, _missing(part.shape[1:], largest)) for part in parts]
    return torch.cat(parts)


def _missing(sides: Sequence[int], largest: Sequence[int]) -> list[int]:
    """Return what `F.pad` adds at the end of each side, last side first."""
    each = zip(reversed(sides), reversed(largest), strict=True)
    return [n for own, side in each for n in (0, side - own)]


def upload(values: Tensor, device: torch.device) -> Tensor:
    """Copy a small tensor to the device, without waiting for a GPU's queue."""
    if device.type == "cpu":
        return values
    return values.pin_memory().to(device, non_blocking=True)
