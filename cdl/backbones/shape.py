"""The shape of a backbone, all that methods know of it. No torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BackboneShape:
    """What planning and methods know of a backbone.

    width: of its tokens and of its pooled feature.
    depth: its number of blocks.
    patch: side of its patches in pixels; None where nobody asks (the forward pass never does).
    class_token: whether its first token is a class token.
    size: side of its input in pixels if that is not the views' size.
    """

    width: int
    depth: int
    patch: int | None = None
    class_token: bool = True
    size: int | None = None
