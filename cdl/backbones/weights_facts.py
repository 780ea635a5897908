"""Licence and input size of published weights, by name. Imports no torch and no timm."""

from cdl.backbones.architectures import architectures

EMBEDDED_LICENCE = (
    "non-commercial research, like the images of ImageNet, from which Tiny-ImageNet derives; "
    "cdl's MIT licence does not cover these weights"
)
# beginnings of timm's tags with CC BY-NC 4.0, FAIR Noncommercial or Apple's licence for research
_RESEARCH_TAGS = (
    *("mae", "metaclip", "eupe_", "apple_mclip", "fcmae", "swag_"),
    *("fb_ssl_", "fb_swsl_", "fb_wsl_"),
)


def is_research_only(source: str, model: str) -> bool:
    """Return whether the licence of weights is known to allow research only.

    Args:
        source: where the weights are from, see `cdl.backbones.fetch.fetch`.
        model: name of the model there; of timm with its tag.
    """
    tag = model.partition(".")[2]
    return source == "embedded" or (source == "timm" and tag.startswith(_RESEARCH_TAGS))


def size_of(source: str, model: str) -> int | None:
    """Return the side in pixels of the images of the pretraining; None if it is unknown."""
    if source == "embedded":
        return int(model.rpartition("_")[2])
    name, _, tag = model.partition(".")
    known = architectures().get(name) if source in ("timm", "file") else None
    return (known.sizes.get(tag, known.size) or None) if known else None
