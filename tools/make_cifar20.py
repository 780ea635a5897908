"""Select the images of `cdl/assets/cifar20.parquet` from CIFAR-100.

    python tools/make_cifar20.py FOLDER [OUT]

FOLDER contains CIFAR-100: its binary archive `cifar-100-binary.tar.gz`, or `train*.parquet` and
`test*.parquet` with the columns image, label and fine_label. Both give the same pixels in the same
order: within a class, images are sorted by a hash of a seed and their pixels, independently of
their original order and names. The first 100 of the training split are training images, the next
20 validation images; the first 100 of the test split are test images. No image is selected twice,
even if the original contains copies of it.
"""

import argparse
import hashlib
import io
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from cdl.data.sources import SOURCES
from cdl.data.sources.items import Source

OUT = Path(__file__).parents[1] / "cdl" / "assets" / "cifar20.parquet"
EVERY, SEED = 5, 0  # one class of five in alphabetical order
PARTS = {"train": {"train": 100, "validation": 20}, "test": {"test": 100}}  # of CIFAR-100's splits


def read(folder: Path) -> Source:
    """Return CIFAR-100 from a folder."""
    if (folder / "cifar-100-binary.tar.gz").exists():
        return SOURCES["cifar100"].read(str(folder))
    return SOURCES["parquet"].read(str(folder), class_name="fine_label")


def draw_key(pixels: np.ndarray) -> bytes:
    """Return the sort key of an image in the draw."""
    return hashlib.sha256(bytes([SEED]) + pixels.tobytes()).digest()


def cut(source: Source) -> list[tuple[str, str, np.ndarray]]:
    """Return split, class name and pixels `[32, 32, 3]` of the selected images."""
    chosen = sorted(source.classes)[::EVERY]
    found: dict[tuple[str, str], dict[bytes, np.ndarray]] = defaultdict(dict)
    for item in source.items:
        if source.classes[item.label] in chosen:
            pixels = item.read()
            found[item.split, source.classes[item.label]][draw_key(pixels)] = pixels
    rows: list[tuple[str, str, np.ndarray]] = []
    taken: set[bytes] = set()
    for split, parts in PARTS.items():
        for name in chosen:
            drawn = [pair for pair in sorted(found[split, name].items()) if pair[0] not in taken]
            for part, n in parts.items():
                rows += [(part, name, pixels) for _, pixels in drawn[:n]]
                taken |= {key for key, _ in drawn[:n]}
                del drawn[:n]
    order = ["train", "validation", "test"]
    return sorted(rows, key=lambda row: (order.index(row[0]), row[1]))


def encoded(pixels: np.ndarray) -> bytes:
    """Encode an image as lossless WebP."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", lossless=True, quality=100, method=6)
    return buffer.getvalue()


def make(folder: Path, out: Path) -> None:
    """Write the file, with the columns image, label, class_name and split."""
    rows = cut(read(folder))
    names = sorted({name for _, name, _ in rows})
    columns = {
        "image": pa.array([encoded(pixels) for _, _, pixels in rows], pa.binary()),
        "label": pa.array([names.index(name) for _, name, _ in rows], pa.int32()),
        "class_name": pa.array([name for _, name, _ in rows]).dictionary_encode(),
        "split": pa.array([split for split, _, _ in rows]).dictionary_encode(),
    }
    pq.write_table(pa.table(columns), out, compression="none", use_dictionary=["class_name"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of CIFAR-100")
    parser.add_argument("out", type=Path, nargs="?", default=OUT, help="%(default)s")
    arguments = parser.parse_args()
    make(arguments.folder, arguments.out)
