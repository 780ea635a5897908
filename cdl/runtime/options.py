"""Define options of methods, distillers and sources as JSON schema.

Further keyword arguments are those of JSON schema (`minimum`, `exclusiveMinimum`, `multipleOf`,
...).
"""

from collections.abc import Sequence
from typing import Any

REQUIRED: Any = object()  # as a default: the option has none and must be given


def _option(kind: str, default: Any, description: str, nullable: bool, rest: Any) -> dict[str, Any]:
    option = {"type": [kind, "null"] if nullable or default is None else kind, **rest}
    if default is not REQUIRED:
        option["default"] = default
    return {**option, "description": description}


def number(
    default: float | None, description: str, nullable: bool = False, **rest: Any
) -> dict[str, Any]:
    """Return an option that is a number."""
    return _option("number", default, description, nullable, rest)


def integer(
    default: int | None, description: str, nullable: bool = False, **rest: Any
) -> dict[str, Any]:
    """Return an option that is an integer."""
    return _option("integer", default, description, nullable, rest)


def text(
    default: str | None, description: str, nullable: bool = False, **rest: Any
) -> dict[str, Any]:
    """Return an option that is a string."""
    return _option("string", default, description, nullable, rest)


def flag(default: bool, description: str, **rest: Any) -> dict[str, Any]:
    """Return an option that is true or false."""
    return _option("boolean", default, description, False, rest)


def choice(
    default: str | None, choices: Sequence[str], description: str, **rest: Any
) -> dict[str, Any]:
    """Return an option that is one of several strings, or null if that is the default."""
    known = [*choices, None] if default is None else list(choices)
    return _option("string", default, description, False, {"enum": known, **rest})


def tokens(default: int, description: str) -> dict[str, Any]:
    """Return an option that is a number of prompt tokens, half keys and half values."""
    description = f"{description}, half keys and half values."
    return integer(default, description, minimum=2, multipleOf=2)


def blocks(default: Sequence[int], description: str, **rest: Any) -> dict[str, Any]:
    """Return an option that is a list of blocks of a backbone, counted from 0."""
    items = {"type": "integer", "minimum": 0}
    rest = {"uniqueItems": True, "items": items, **rest}
    return _option("array", list(default), description, False, rest)


def integers(default: Sequence[int], description: str, **rest: Any) -> dict[str, Any]:
    """Return an option that is a list of positive integers."""
    items = {"type": "integer", "minimum": 1}
    return _option("array", list(default), description, False, {"items": items, **rest})
