"""Facts of methods and distillers that planning reads without torch."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Facts of a method or distiller.

    path: `module:Class`, the implementation, which imports torch.
    description: one sentence with the paper.
    options: arguments of the class by name, as JSON schema with the defaults of its signature; see
        `cdl.runtime.options`.
    alternatives: mutually exclusive options; the one in a configuration replaces that of a preset.
    protocol: fields of the block `protocol` that are also arguments of the class.
    numerics: revision; increase it when the results of this method or distiller change.
    """

    path: str = field(kw_only=False)
    description: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    alternatives: tuple[str, ...] = ()
    protocol: tuple[str, ...] = ()
    numerics: int = 1

    @property
    def module(self) -> str:
        """Name of the module of the implementation."""
        return self.path.partition(":")[0]

    @property
    def built_in(self) -> bool:
        """Whether it is part of this package."""
        return self.path.startswith("cdl.")


@dataclass(frozen=True)
class Look:
    """Colour, marker and line style of a learner in every figure and on the page.

    Distillers that often share a figure have the colours of Okabe and Ito, which colour-blind
    readers can distinguish; the others differ from these in lightness. All differ in marker and
    line style.

    Attributes:
        colour: `#RRGGBB`, with a contrast of at least 3:1 against white.
        marker: matplotlib marker.
        dash: matplotlib line style; with the marker it distinguishes lines without colour.

    Raises:
        ValueError: a value is not valid in matplotlib.
    """

    colour: str
    marker: str
    dash: str = "-"

    def __post_init__(self) -> None:
        patterns = {"colour": "#[0-9A-Fa-f]{6}", "marker": r"[.,ov^<>1-48sp*hH+xDdPX|_]"}
        for name, pattern in {**patterns, "dash": "-|--|-[.]|:"}.items():
            if not re.fullmatch(pattern, value := getattr(self, name)):
                raise ValueError(f"look.{name}: invalid value {value!r}; expected {pattern}")

    @property
    def line(self) -> dict[str, Any]:
        """Keyword arguments of `Axes.plot`."""
        return {**self.point, "linestyle": self.dash, "linewidth": 1.3}

    @property
    def point(self) -> dict[str, Any]:
        """Keyword arguments of `Axes.plot` and `Axes.errorbar` for markers alone."""
        edge = {"markeredgecolor": "white", "markeredgewidth": 0.5}
        return {
            "color": self.colour,
            "marker": self.marker,
            "markersize": 5,
            "linestyle": "none",
            **edge,
        }


class Unsuitable(Exception):
    """A method, a distiller or one of its options is not valid in a run."""

    def __init__(self, field: str, value: Any, expected: str) -> None:
        super().__init__(f"{field}: invalid value {value!r}; expected {expected}")
        self.field, self.value, self.expected = field, value, expected


def refuse(wrong: Any, field: str, value: Any, expected: str) -> None:
    """Raise `Unsuitable` if a condition is true.

    For the `check` of a method or distiller.

    Args:
        wrong: the condition.
        field: name of the option; empty if no single option is invalid.
        value: the invalid value.
        expected: description of valid values.
    """
    if wrong:
        raise Unsuitable(field, value, expected)


def schema_block(
    description: str, options: Mapping[str, Any], *, optional: bool = False
) -> dict[str, Any]:
    """Return the schema of a block of options, of which those without a default are required.

    Args:
        description: of the block.
        options: schema of each option by its name.
        optional: whether the block may be left out if no option is required.
    """
    required = [name for name, option in options.items() if "default" not in option]
    absent: dict[str, Any] = {"default": {}} if optional else {}
    return {
        "type": "object",
        "additionalProperties": False,
        **({"required": required} if required else absent),
        "description": description,
        "properties": dict(options),
    }
