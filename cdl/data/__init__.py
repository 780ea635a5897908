"""Packed pixels, class order and tasks, seeded views and batches, independent of any model.

This file imports nothing, so that preparing a dataset does not import torch; it contains the
constants that planning reads.
"""

FORMAT = 2  # raised when the contents of packed folders change, so that they are made again
MANIFEST = "manifest.json"  # of a packed folder


def pixels_name(split: str) -> str:
    """Return the name of the file with a split's images in a packed folder."""
    return f"{split}.pixels"


def index_name(split: str) -> str:
    """Return the name of the file with a split's labels, sizes and hashes in a packed folder."""
    return f"{split}.parquet"
