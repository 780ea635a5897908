"""Where images come from: published archives, folders and tables, as named items.

Nothing is imported here: only facts stand here that others plan with.
"""

from collections.abc import Mapping
from typing import Any

SPLITS = ("train", "test")
N_CLASSES = {  # of sources that have them fixed
    "digits": 10,
    "cifar20": 20,
    "cifar10": 10,
    "cifar100": 100,
    "imagenet_r": 200,
}
N_IMAGES = {  # of training and test images, where they are fixed
    "cifar20": {"train": 2_000, "test": 2_000},
    "cifar10": {"train": 50_000, "test": 10_000},
    "cifar100": {"train": 50_000, "test": 10_000},
    "imagenet_r": {"train": 24_000, "test": 6_000},
}
_CIFAR = (
    "published without a licence, with the wish that the technical report be cited (Krizhevsky, "
    "2009); rights in single images may be their owners'"
)
LICENCES = {  # of images, as far as their publishers say; others are their owners' to say
    "digits": "CC BY 4.0 (Alpaydin and Kaynak, 1998, UCI Machine Learning Repository)",
    "cifar20": _CIFAR,
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    "imagenet_r": "images of the web, for research (Hendrycks et al., 2021)",
}
DIGITS = 1797  # images of both splits


def n_training_images(source: str, options: Mapping[str, Any], per_class: int | None) -> int | None:
    """Return how many training images a source has, None if only its files say.

    Args:
        source: its name.
        options: its block of the configuration.
        per_class: most of each class; None for all.
    """
    if source == "digits":
        n = DIGITS - int(options.get("test_images", 0))
    elif source in N_IMAGES:
        n = N_IMAGES[source]["train"]
    else:
        return None
    return n if per_class is None else min(n, per_class * N_CLASSES[source])
