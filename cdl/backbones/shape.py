"""The shape of a backbone, all that methods know of it. No torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BackboneShape:
    """Width and number of blocks of a backbone.

    patch: side of its patches in pixels; None where nobody asks (the forward pass never does).
    """

    width: int
    depth: int
    patch: int | None = None
