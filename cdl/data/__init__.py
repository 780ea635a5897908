"""Datasets by name, packed pixels, class order and tasks, seeded views. Knows no model.

Nothing is imported here, so that preparing a dataset does not wait for torch: only facts stand
here that others plan with.
"""

MANIFEST = "manifest.json"  # of a packed folder
SPLITS = ("train", "test")
N_CLASSES = {"digits": 10, "cifar100": 100, "imagenet_r": 200}  # of sources that have them fixed
N_IMAGES = {  # of training and test images, of published sources
    "cifar100": {"train": 50_000, "test": 10_000},
    "imagenet_r": {"train": 24_000, "test": 6_000},
}


def pixels_name(split: str) -> str:
    """Return the file of a split's images in a packed folder."""
    return f"{split}.pixels"


def index_name(split: str) -> str:
    """Return the file of a split's labels, sizes and hashes in a packed folder."""
    return f"{split}.parquet"
