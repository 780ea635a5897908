"""Images: RGB pixels of any size, cropped, flipped and resized, for vision transformers."""

from collections.abc import Mapping
from typing import Any

from cdl.data.modalities import ModalityFacts
from cdl.runtime.errors import CdlError
from cdl.runtime.options import REQUIRED, integer, number
from cdl.spec import HeldOutView, InputView, View


def _pair(default: list[float], description: str, **items: Any) -> dict[str, Any]:
    """Return an option that is a range: two numbers."""
    return {
        "type": "array",
        "minItems": 2,
        "maxItems": 2,
        "items": {"type": "number", "exclusiveMinimum": 0, **items},
        "default": default,
        "description": description,
    }


def _part(fields: Mapping[str, Any]) -> type[InputView]:
    return View if "flip" in fields else HeldOutView


def _check(name: str, view: Mapping[str, Any]) -> None:
    for key in ("crop_scale", "crop_ratio"):
        low, high = view[key]
        if low > high:
            raise CdlError(
                f"{name}.{key}: invalid value {view[key]!r}; expected the lower bound first"
            )
    resize, size = view["test_resize"], view["size"]
    if resize is not None and resize < size:
        raise CdlError(
            f"{name}.test_resize: invalid value {resize!r}; expected at least view.size, {size}"
        )


IMAGES = ModalityFacts(
    items="images",
    description="How images are cropped, flipped and resized to inputs.",
    options={
        "size": integer(REQUIRED, "Side of an input in pixels.", minimum=8, maximum=10000),
        "crop_scale": _pair(
            [0.08, 1.0],
            "Random crop in training: range of its area, as a fraction of the image.",
            maximum=1,
        ),
        "crop_ratio": _pair(
            [0.75, 1.3333333333333333], "Random crop in training: range of width / height."
        ),
        "flip": number(0.5, "Probability of a horizontal flip in training.", minimum=0, maximum=1),
        "test_resize": integer(
            None,
            "Short side of a test image in pixels, before the centre crop; null resizes the whole "
            "image without a crop.",
            minimum=8,
            maximum=10000,
        ),
    },
    size="size",
    channels=3,
    resizes=True,
    part=_part,
    views="cdl.data.views:Views",
    backbone="cdl.backbones.images:ImageBackbone",
    student="cdl.deployment.trained:TrainedStudent",
    device="cdl.device.images:Student",
    device_parts=("decoding", "images"),
    new="cdl.deployment.new_images:NewImages",
    formats=("onnx", "executorch", "timm"),
    int8=("dynamic", "static"),
    check=_check,
)
