"""What is common to the facts of methods and distillers, which planning reads without torch."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Facts of a method or distiller.

    path: `module:Class`, the class that needs torch.
    description: one sentence with the paper.
    options: arguments of the class by name, as JSON schema with the defaults of its signature;
        `cdl.runtime.options` writes them in short.
    alternatives: options of which a configuration gives one: it replaces another one of a preset.
    protocol: fields of the block `protocol` that the class takes as arguments, too.
    numerics: raised whenever the numbers of this one change and those of no other.
    """

    path: str = field(kw_only=False)
    description: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    alternatives: tuple[str, ...] = ()
    protocol: tuple[str, ...] = ()
    numerics: int = 1

    @property
    def built_in(self) -> bool:
        """Whether it is part of this package."""
        return self.path.startswith("cdl.")


@dataclass(frozen=True)
class Look:
    """How a learner looks in every figure and on the page.

    Distillers that often share a figure have the colours of Okabe and Ito, safe for colour-blind
    readers; the others differ from these in lightness, and all in marker and dash.

    Attributes:
        colour: `#RRGGBB`, at least 3 to 1 against white.
        marker: of matplotlib.
        dash: of matplotlib; with the marker it tells lines apart without colour.

    Raises:
        ValueError: matplotlib could not draw it.
    """

    colour: str
    marker: str
    dash: str = "-"

    def __post_init__(self) -> None:
        known = {"colour": "#[0-9A-Fa-f]{6}", "marker": r"[.,ov^<>1-48sp*hH+xDdPX|_]"}
        for name, pattern in {**known, "dash": "-|--|-[.]|:"}.items():
            if not re.fullmatch(pattern, value := getattr(self, name)):
                raise ValueError(f"invalid {name} {value!r} of a look: expected {pattern}")

    @property
    def line(self) -> dict[str, Any]:
        """Return it as arguments of `Axes.plot`."""
        return {**self.point, "linestyle": self.dash, "linewidth": 1.3}

    @property
    def point(self) -> dict[str, Any]:
        """Return it as arguments of `Axes.plot` and `Axes.errorbar`, without a line."""
        edge = {"markeredgecolor": "white", "markeredgewidth": 0.5}
        return {
            "color": self.colour,
            "marker": self.marker,
            "markersize": 5,
            "linestyle": "none",
            **edge,
        }


class Unsuitable(Exception):
    """An option, or all of a method or distiller, cannot work in a run."""

    def __init__(self, field: str, value: Any, expected: str) -> None:
        super().__init__(f"{field}: {value!r} cannot work; needed is {expected}")
        self.field, self.value, self.expected = field, value, expected


def refuse(wrong: Any, field: str, value: Any, expected: str) -> None:
    """Raise `Unsuitable` if something is wrong; for the `check` of a method or distiller.

    Args:
        wrong: the condition.
        field: name of the option; empty where no single option is wrong.
        value: what is wrong.
        expected: what would be right.
    """
    if wrong:
        raise Unsuitable(field, value, expected)
