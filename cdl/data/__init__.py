"""Packed pixels, class order, tasks, seeded views and batches; no models.

This file imports nothing, so that preparing a dataset does not import torch; it contains the
constants that planning reads.
"""

FORMAT = 2  # raised when the contents of packed folders change, so that they are made again
MANIFEST = "manifest.json"  # of a packed folder


def pixels_name(split: str) -> str:
    """Return the file name of a split's images in a packed folder."""
    return f"{split}.pixels"


def index_name(split: str) -> str:
    """Return the file name of a split's labels, sizes and hashes in a packed folder."""
    return f"{split}.parquet"
