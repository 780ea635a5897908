"""Scikit-learn's 1,797 handwritten digits (8x8, UCI Machine Learning Repository)."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from cdl.data.sources import SPLITS, SourceFacts
from cdl.data.sources.items import Item, Source
from cdl.runtime.options import integer

IMAGES = 1797  # in both splits


def read(seed: int = 0, test_images: int = 360) -> Source:
    """Split the digits once, stratified by class.

    Args:
        seed: of the split, independent of the seeds of the runs.
        test_images: number of test images.
    """
    import numpy as np
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    index = np.arange(len(data.target))
    train, test = train_test_split(
        index, test_size=test_images, stratify=data.target, random_state=seed
    )
    pixels = np.rint(data.images * (255 / 16)).astype(np.uint8)[..., None].repeat(3, axis=-1)
    items = [
        Item(split, int(data.target[i]), f"digits[{i}]", partial(pixels.__getitem__, i))
        for split, indices in zip(SPLITS, (train, test), strict=True)
        for i in sorted(indices)
    ]
    return Source(tuple(str(d) for d in range(10)), items)


def _n_images(options: Mapping[str, Any]) -> dict[str, int]:
    test = int(options.get("test_images", 0))
    return {"train": IMAGES - test, "test": test}


DIGITS = SourceFacts(
    read=read,
    description="Scikit-learn's handwritten digits, 8x8, no download.",
    options={
        "seed": integer(0, "Seed of the split into training and test images.", minimum=0),
        "test_images": integer(360, "Number of test images.", minimum=10, maximum=1787),
    },
    n_classes=10,
    n_images=_n_images,
    licence="CC BY 4.0 (Alpaydin and Kaynak, 1998, UCI Machine Learning Repository)",
)
