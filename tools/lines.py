"""Draw numbers with their intervals as lines, one panel per title."""

from collections.abc import Sequence
from typing import NamedTuple

from cdl.reporting.style import canvas, paper, save

_COLOUR = "#0072B2"


class Line(NamedTuple):
    """A number with its interval, in percentage points."""

    panel: str
    label: str
    value: float
    low: float
    high: float


@paper()
def draw(lines: Sequence[Line], x: str, note: str, output: str) -> None:
    """Draw lines, the labels from top to bottom in the order in which they come first.

    Args:
        lines: one per panel and label, or fewer.
        x: what the numbers are.
        note: small print of the figure.
        output: path of the SVG file.
    """
    panels = list(dict.fromkeys(line.panel for line in lines))
    labels = list(dict.fromkeys(line.label for line in lines))
    height = 0.75 + 0.24 * len(labels)
    figure, axes = canvas(panels, x, "", note, height, sharex=True, sharey=True)
    for axis, panel in zip(axes, panels, strict=True):
        axis.axvline(0, color="black", linewidth=0.8)
        for line in (line for line in lines if line.panel == panel):
            y = labels.index(line.label)
            axis.hlines(y, line.low, line.high, color=_COLOUR, linewidth=1.6)
            axis.plot(line.value, y, "o", color=_COLOUR, markersize=4)
        axis.set_yticks(range(len(labels)), labels)
        axis.tick_params(axis="y", length=0)
    axes[0].set_ylim(len(labels) - 0.35, -0.65)
    save(figure, [output])
