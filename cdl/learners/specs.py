"""What caches are made of, as plain dictionaries: the workflow plans with them, jobs check them.

A learner's specification (see `cdl.study.specifications`) goes in. No torch here.
"""

from collections.abc import Mapping
from typing import Any

_VIEWS = (
    *("numerics", "seed", "student_views"),
    *("stream", "images_per_class", "unlabelled", "view", "normalization"),
)
_TEST_VIEWS = ("numerics", "normalization")
_ALIGNED = ("seed", "stream", "images_per_class")  # which images a task has
_ROUNDING = ("cache_dtype",)
BF16 = 2  # raised when numbers in bf16 change and no others; 1: attention by torch's fused kernel


def precision_of(spec: Mapping[str, Any], backbone: str) -> str:
    """Return the precision of a backbone's frozen weights in a specification of any kind.

    Its `precision` is one word for all backbones, or a word for each where they differ.
    """
    given = spec.get("precision", "fp32")
    return str(given if isinstance(given, str) else given[backbone])


def queries_spec(spec: Mapping[str, Any], backbone: str) -> dict[str, Any]:
    """Return what fixes the queries of a learner's training views, from a backbone's name."""
    training = {key: spec["training"][key] for key in ("epochs", "batch_size")}
    own = {"backbone": backbone, "training": training}
    return _part(spec, _VIEWS + _ROUNDING) | _of(spec, backbone) | own


def test_queries_spec(
    spec: Mapping[str, Any], backbone: str, images_per_class: int | None
) -> dict[str, Any]:
    """Return what fixes the queries of the test views."""
    own = _seen_as_at_test(spec, backbone) | {"images_per_class": images_per_class}
    return own | _part(spec, _ROUNDING)


def aligning_queries_spec(spec: Mapping[str, Any], backbone: str) -> dict[str, Any]:
    """Return what fixes the queries that alignment reads: of training images, seen as at test.

    They are not rounded. Unlike the others they are no matter of epochs and batches.
    """
    return _seen_as_at_test(spec, backbone) | _part(spec, _ALIGNED) | {"views": "test"}


def targets_spec(spec: Mapping[str, Any], teacher_spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return what fixes a teacher's targets for a student's training views."""
    return {
        "teacher": dict(teacher_spec),
        "views": queries_spec(spec, teacher_spec["query"]),
        **_part(spec, ("apt_teacher",)),
    }


def _seen_as_at_test(spec: Mapping[str, Any], backbone: str) -> dict[str, Any]:
    view = {key: spec["view"][key] for key in ("size", "test_resize")}  # no crop, no flip
    return _part(spec, _TEST_VIEWS) | _of(spec, backbone) | {"backbone": backbone, "view": view}


def _of(spec: Mapping[str, Any], backbone: str) -> dict[str, Any]:
    """Return what a backbone has of its own: precision, size of its input."""
    precision, size = precision_of(spec, backbone), spec.get("sizes", {}).get(backbone)
    own: dict[str, Any] = {} if precision == "fp32" else {"precision": precision, "bf16": BF16}
    return own | ({} if size is None else {"sizes": {backbone: size}})


def _part(spec: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: spec[key] for key in keys if key in spec}
