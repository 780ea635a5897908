"""The shape of a backbone, which is all that methods read of it. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass

ENTRANCES = ("mlp", "qkv", "affine", "tokens")  # see `cdl.backbones.inside`


@dataclass(frozen=True)
class Sites:
    """Names of the modules of a block where small modules enter, see `cdl.backbones.inside`.

    read: its input is `u`, to which the block adds the output of its MLP.
    add: an adapter of `u` is added to its output; empty for the block itself.
    projections: by `qkv`, or by `q_proj`, `k_proj` and `v_proj`.
    """

    read: str
    add: str
    projections: Mapping[str, str]


@dataclass(frozen=True)
class BackboneShape:
    """Facts about a backbone that planning and methods read.

    width: of its tokens and of its pooled feature.
    depth: number of blocks; 0 if only its pooled feature is read.
    patch: side of a patch in pixels, or another divisor of the sides that its input can have; None
        where it is unused, as in the forward pass, or if its input has one size.
    class_token: whether the first token is a class token.
    size: side of its input in pixels if that differs from the size of the views.
    entrances: where small modules can enter its blocks, of `ENTRANCES`.
    modality: of its inputs, see `cdl.data.modalities`.
    tokenizer: name of the division of an input into tokens, for modalities without patches.
    positions: largest number of tokens of an input; None where any number fits.
    unprompted: a sentence why nothing can enter its blocks, so that methods can read its pooled
        feature only; empty if prompts can.
    """

    width: int
    depth: int
    patch: int | None = None
    class_token: bool = True
    size: int | None = None
    entrances: tuple[str, ...] = ENTRANCES
    modality: str = "images"
    tokenizer: str | None = None
    positions: int | None = None
    unprompted: str = ""

    @property
    def grid(self) -> str:
        """What its tokens are; backbones with an equal grid can be compared token by token."""
        n = (self.size or 0) // (self.patch or 1)
        return self.tokenizer or f"{n} x {n}"


def features_shape(width: int, step: int | None, size: int, unprompted: str) -> BackboneShape:
    """Return the shape of a model of which only features are read; see `BackboneShape`."""
    return BackboneShape(
        width, 0, step, class_token=False, size=size, entrances=(), unprompted=unprompted
    )
