"""Style of all figures: sizes of a paper's columns, one look per distiller in every figure.

Example::

    with paper():
        note = about(runs, images, "band: sample standard deviation over seeds")
        figure, axes = canvas(titles, "tasks learnt", "average accuracy (%)", note)
        axes[0].plot(x, y, **look("kd").line)
        label_lines(axes[0], {"kd": (x[-1], y[-1])})
        save(figure, outputs)
"""

import math
import re
import textwrap
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import matplotlib
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cdl.distillers import DISTILLERS
from cdl.reporting.names import dataset_names
from cdl.reporting.text import either, seeds
from cdl.runtime.artifacts import check_files, replacing
from cdl.runtime.facts import Look

_SMALL_PRINT = 6  # font size in points
_PIXELS_PER_POINT = 11 / _SMALL_PRINT  # on the page
COLUMN, PAGE = 3.35, 6.9  # width in inches: one column of a paper, both columns
_TITLE = (28, 44)  # characters in a line of a title, of one of several axes and of a single one
INK = "#1b2026"
_PAPER: dict[Any, Any] = {
    "svg.hashsalt": "cdl",  # makes the bytes of a figure reproducible
    "svg.fonttype": "path",  # embeds letters as paths, independent of installed fonts
    "pdf.fonttype": 42,  # embeds TrueType fonts, which publishers require
    "font.family": "DejaVu Sans",  # ships with matplotlib
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "text.color": INK,
    "axes.labelcolor": INK,
    "legend.frameon": False,
}


TEACHER = Look(INK, "s", "--")  # looks of distillers are in their facts
_OTHERS = ("#7A4E2D", "#5B5BD6", "#A3333D", "#4F6D00")  # colours of distillers without a look
_VARIANTS = "dHp8"


def look(name: str) -> Look:
    """Return the look of a learner by its name, see `cdl.reporting.names.names`.

    A variant, in brackets or after a comma, has the colour of its distiller and its own marker.
    """
    base, *rest = re.split(r" \(|, ", name, maxsplit=1)
    variant = "".join(rest)
    known = TEACHER if base == "teacher" else None
    if base in DISTILLERS:
        known = DISTILLERS[base].look
    known = known or Look(_OTHERS[crc32(base.encode()) % len(_OTHERS)], "*", ":")
    if not variant:
        return known
    return replace(known, marker=_VARIANTS[crc32(variant.encode()) % len(_VARIANTS)], dash=":")


@contextmanager
def paper() -> Iterator[None]:
    """Return a context manager, or decorator, in which figures are drawn and saved."""
    with matplotlib.rc_context(_PAPER):
        yield


def canvas(
    titles: Sequence[str], x: str, y: str, note: str, height: float = 2.3, **shared: Any
) -> tuple[Figure, list[Axes]]:
    """Create a figure with one axis per title.

    A single axis has the width of a column; several fill the page, at most three per row.

    Args:
        titles: titles of the axes.
        x: common label of the x axes.
        y: common label of the y axes.
        note: small print above the axes, see `about`.
        height: height of a row of axes, in inches.
        **shared: `sharex` and `sharey` of `Figure.subplots`.
    """
    columns = min(len(titles), 3)
    lines = math.ceil(len(titles) / columns)
    width = COLUMN if columns == 1 else PAGE
    figure = Figure(figsize=(width, height * lines), layout="constrained")
    small_print(figure, note)
    axes = list(figure.subplots(lines, columns, squeeze=False, **shared).flat)
    for axis in axes[len(titles) :]:
        axis.set_axis_off()
    for axis, title in zip(axes, titles, strict=False):
        wrapped = (textwrap.fill(line, _TITLE[columns == 1]) for line in title.splitlines())
        axis.set_title("\n".join(wrapped), fontweight="bold")
        axis.grid(alpha=0.25, linewidth=0.5)
    for axis in axes[max(0, len(titles) - columns) : len(titles)]:
        axis.tick_params(labelbottom=True)  # also above an empty place in the last row
    figure.supxlabel(x, fontsize=8)
    figure.supylabel(y, fontsize=8)
    return figure, axes[: len(titles)]


def draw_band(axis: Axes, x: Any, low: Any, high: Any, colour: str) -> None:
    """Fill the area between two lines."""
    axis.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)


def nothing(text: str) -> Figure:
    """Create a figure that says why there is nothing to draw."""
    figure = Figure(figsize=(5, 1))
    figure.text(0.5, 0.5, text, ha="center")
    return figure


def label_lines(axis: Axes, ends: Mapping[str, tuple[float, float]]) -> None:
    """Write the name of each learner behind the end of its line, without overlaps.

    Args:
        axis: axis with all lines drawn and final limits.
        ends: last point of each line by the name of the learner.
    """
    figure = axis.get_figure()
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    low, high = axis.get_ylim()
    line = 8.5 / 72 * figure.dpi / axis.get_window_extent().height * (high - low)
    ranked = sorted(ends, key=lambda name: ends[name][1])
    at = [ends[name][1] for name in ranked]
    for _ in range(50):  # move overlapping neighbours apart, half the distance each
        for i in range(len(at) - 1):
            push = (line - (at[i + 1] - at[i])) / 2
            if push > 0:
                at[i], at[i + 1] = at[i] - push, at[i + 1] + push
    up = max(0.0, low + line / 2 - at[0]) if at else 0.0  # keeps names above the tick labels
    for name, y in zip(ranked, (up + place for place in at), strict=True):
        x = ends[name][0]
        style: dict[str, Any] = {"color": _darker(look(name).colour), "va": "center"}
        offset: dict[str, Any] = {"textcoords": "offset points", "annotation_clip": False}
        axis.annotate(name, (x, y), (6, 0), fontsize=7, **style, **offset)


def legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """Add one legend for all axes to the right of the figure."""
    drawn: dict[str, Artist] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        drawn |= dict(zip(labels, handles, strict=True))
    figure.legend(list(drawn.values()), list(drawn), loc="outside right center", fontsize=7)


def about(runs: pd.DataFrame, images: int | None, interval: str) -> str:
    """Return the small print of a figure: data, pair, number of seeds, meaning of intervals.

    Args:
        runs: rows of one dataset in the figure; columns of `cdl.reporting.runs.tables_of`.
        images: number of test images; None omits it.
        interval: description of bars or bands.
    """
    tasks = either(sorted({*runs["n_tasks"]}))
    pairs = runs[runs["teacher"] != ""][["teacher", "backbone"]].drop_duplicates()
    taught = [f"{teacher} to {student}" for teacher, student in pairs.itertuples(index=False)]
    alone = sorted({*runs["backbone"]})
    parts = [
        f"{dataset_names(runs)[runs['dataset'].iloc[0]]}, {tasks} tasks",
        f"{images:,} test examples" if images else "",
        ", ".join(taught or alone),
        f"n = {seeds(runs['seed'].nunique())}",
        interval,
    ]
    return "; ".join(part for part in parts if part)


def small_print(figure: Figure, note: str) -> None:
    """Write a note above a figure, see `about`; `canvas` calls it."""
    width = int(figure.get_figwidth() * 72 / (_SMALL_PRINT * 0.52))
    lines = "\n".join(textwrap.wrap(note, width))
    figure.suptitle(lines, x=0.01, ha="left", fontsize=_SMALL_PRINT, color="#50565c")


@paper()
def save(figure: Figure, outputs: Sequence[str]) -> None:
    """Write a figure in the formats of the suffixes: svg, pdf, or png with 300 dpi."""
    dates = {"svg": "Date", "pdf": "CreationDate"}
    for output in outputs:
        kind = output.rsplit(".", 1)[-1]
        metadata = {dates[kind]: None} if kind in dates else None
        with replacing(output) as temporary:
            figure.savefig(temporary, format=kind, dpi=300, metadata=metadata)


def embedded(svg: str, record: str | None = None) -> dict[str, Any]:
    """Return a figure of `save` for the page: `svg` in base64, and its `width` in CSS pixels.

    It is shown larger than in print, so that its small print has 11 pixels.

    Raises:
        CdlError: the figure does not match its record, if one is given.
    """
    if record is not None:
        check_files(record, svg)
    content = Path(svg).read_bytes()
    printed = re.search(rb'<svg[^>]*? width="([\d.]+)pt"', content)
    assert printed is not None, svg
    width = round(float(printed[1]) * _PIXELS_PER_POINT)
    return {"svg": b64encode(content).decode(), "width": width}


def _darker(colour: str) -> tuple[float, ...]:
    """Return a darker colour for text, which needs more contrast than lines."""
    return tuple(0.78 * part for part in matplotlib.colors.to_rgb(colour))
