"""Datasets by name, packed pixels, class order and tasks, seeded views. Knows no model."""

from cdl.data.batches import Batch, Batches
from cdl.data.packed import Packed, prepare
from cdl.data.stream import Stream
from cdl.data.views import Views

__all__ = ["Batch", "Batch", "Batches", "Packed", "Stream", "Views", "prepare"]
