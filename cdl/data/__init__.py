"""Packed pixels, class order and tasks, seeded views, batches. Knows no model.

Nothing is imported here, so that preparing a dataset does not wait for torch: only facts stand
here that others plan with.
"""

FORMAT = 2  # raised when a packed folder holds something else: it is then made again
MANIFEST = "manifest.json"  # of a packed folder


def pixels_name(split: str) -> str:
    """Return the file of a split's images in a packed folder."""
    return f"{split}.pixels"


def index_name(split: str) -> str:
    """Return the file of a split's labels, sizes and hashes in a packed folder."""
    return f"{split}.parquet"
