"""Decoded once, read for ever: a dataset as raw uint8 pixels, an index and a manifest.

A packed folder holds, per split, `SPLIT.pixels` (all images `[H, W, 3]` one after another) and
`SPLIT.parquet` (label, height, width, offset, name), and one `manifest.json` with class names,
counts, sha256 of the files, and the source.
"""

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from cdl.artifacts import fingerprint_file, read_json, replacing, write_json
from cdl.data.items import SPLITS, Source
from cdl.data.sources import SOURCES
from cdl.errors import CdlError

log = logging.getLogger(__name__)


def prepare(output: str | Path, source: Mapping[str, Any], short_side: int | None = None) -> None:
    """Decode a source into a packed folder; the manifest is written last.

    Args:
        output: the folder.
        source: `name` of a source and its arguments.
        short_side: images are stored with this short side in pixels (antialiased bilinear,
            never enlarged); None keeps them as they are.

    Raises:
        CdlError: bad data, naming the file: an unreadable image, a label out of range, a class
            without images, an empty split, one file in both splits.
    """
    output = Path(output)
    arguments = dict(source)
    data: Source = SOURCES[arguments.pop("name")](**arguments)
    items = iter(data.items)
    item = next(items, None)
    manifest: dict[str, Any] = {
        "source": dict(source),
        "short_side": short_side,
        "classes": list(data.classes),
        "splits": {},
    }
    seen: dict[str, set] = {}
    for split in SPLITS:  # sources yield the training items first
        index, pixels_seen = [], set()
        with replacing(output / f"{split}.pixels") as temporary, open(temporary, "wb") as file:
            while item is not None and item.split == split:
                pixels = np.ascontiguousarray(_shrink(item.read(), short_side))
                if not 0 <= item.label < len(data.classes):
                    raise CdlError(
                        f"{item.name} has label {item.label}; there are "
                        f"{len(data.classes)} classes, so 0 to {len(data.classes) - 1}"
                    )
                index.append((item.label, *pixels.shape[:2], file.tell(), item.name))
                pixels_seen.add(hashlib.sha256(pixels.tobytes()).digest())
                file.write(pixels.tobytes())
                item = next(items, None)
        frame = pd.DataFrame(index, columns=["label", "height", "width", "offset", "name"])
        _check(frame, split, data.classes)
        with replacing(output / f"{split}.parquet") as temporary:
            frame.to_parquet(temporary, index=False)
        manifest["splits"][split] = {
            "images": len(frame),
            "pixels_sha256": fingerprint_file(output / f"{split}.pixels"),
            "index_sha256": fingerprint_file(output / f"{split}.parquet"),
        }
        seen[split] = {"names": set(frame["name"]), "pixels": pixels_seen}
    twice = seen["train"]["names"] & seen["test"]["names"]
    if twice:
        raise CdlError(f"{min(twice)} is in the training and in the test split")
    equal = len(seen["train"]["pixels"] & seen["test"]["pixels"])
    if equal:
        log.warning("%d images have pixel-identical copies in the other split", equal)
    manifest["equal_pixels_in_both_splits"] = equal
    write_json(output / "manifest.json", manifest)
    log.info("packed %s", {s: manifest["splits"][s]["images"] for s in SPLITS})


def _check(frame: pd.DataFrame, split: str, classes: tuple[str, ...]) -> None:
    if frame.empty:
        raise CdlError(f"the {split} split is empty")
    missing = sorted(set(range(len(classes))) - set(frame["label"]))
    if missing:
        raise CdlError(
            f"the {split} split has no image of class {missing[0]} ({classes[missing[0]]!r})"
        )


def _shrink(pixels: np.ndarray, short_side: int | None) -> np.ndarray:
    height, width = pixels.shape[:2]
    if short_side is None or min(height, width) <= short_side:
        return pixels
    scale = short_side / min(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


class Packed:
    """One split of a packed folder, memory-mapped.

    Attributes:
        labels: `[N]` int64, as in the source.
        names: `[N]` file names.
        fingerprint: sha256 of pixels and index.
    """

    def __init__(self, folder: str | Path, split: str) -> None:
        """Open a split and check it.

        Reading the pixels once for their sha256 takes about a second per GB and job, and leaves
        them in the page cache for training.

        Raises:
            CdlError: a file is missing, or is not the one that the manifest describes.
        """
        folder = Path(folder)
        again = f"delete {folder} and run again"
        manifest = read_json(folder / "manifest.json")
        try:
            entry = manifest["splits"][split]
            recorded = {"pixels": entry["pixels_sha256"], "parquet": entry["index_sha256"]}
            self.classes: list[str] = manifest["classes"]
        except (KeyError, TypeError) as error:
            raise CdlError(f"{folder}/manifest.json has no {error}; {again}") from error
        for kind, expected in recorded.items():
            path = folder / f"{split}.{kind}"
            try:
                found = fingerprint_file(path)
            except OSError as error:
                raise CdlError(f"{path} cannot be read ({error.strerror}); {again}") from error
            if found != expected:
                raise CdlError(
                    f"{path} has sha256 {found[:12]} but manifest.json records "
                    f"{str(expected)[:12]}: it was damaged or changed; {again}"
                )
        self.fingerprint: str = recorded["pixels"] + recorded["parquet"]
        index = pd.read_parquet(folder / f"{split}.parquet")
        pixels = np.memmap(folder / f"{split}.pixels", dtype=np.uint8, mode="c")
        self.labels = torch.from_numpy(index["label"].to_numpy(np.int64, copy=True))
        self.names = index["name"].to_numpy()
        self._sizes = torch.from_numpy(index[["height", "width"]].to_numpy(np.int64, copy=True))
        self._offsets = index["offset"].to_numpy()
        self._pixels = torch.from_numpy(pixels)
        self._uniform = bool((self._sizes == self._sizes[0]).all())
        if self._uniform:
            self._pixels = self._pixels.view(-1, *self._sizes[0].tolist(), 3)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return images `[B, 3, H, W]` uint8, padded below and right, and sizes `[B, 2]`."""
        sizes = self._sizes[indices]
        if self._uniform:
            return self._pixels[indices].permute(0, 3, 1, 2), sizes
        images = torch.zeros(len(indices), *sizes.amax(0).tolist(), 3, dtype=torch.uint8)
        for image, i, (height, width) in zip(images, indices.tolist(), sizes.tolist(), strict=True):
            start = self._offsets[i]
            flat = self._pixels[start : start + height * width * 3]
            image[:height, :width] = flat.view(height, width, 3)
        return images.permute(0, 3, 1, 2), sizes
