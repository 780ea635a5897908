"""Figures for print: no colour is needed to tell two lines apart."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import pandas as pd

from cdl.artifacts import replacing

matplotlib.use("agg")
matplotlib.rcParams |= {
    "svg.hashsalt": "cdl",  # equal input, equal bytes
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}
from matplotlib import pyplot  # noqa: E402  (after the backend is chosen)

# Okabe and Ito's palette, safe for colour-blind readers; markers and dashes for print
_COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#999933"]
_MARKERS = "osD^vP*X"
_DASHES = ["-", "--", "-.", ":"]


def accuracy_over_tasks(curves: pd.DataFrame, outputs: Sequence[str]) -> None:
    """Draw the mean accuracy over the tasks seen, against the number of tasks learnt.

    One panel per method and pair of teacher and student; mean over seeds with a band of one
    sample standard deviation where there are several.

    Args:
        curves: rows of one dataset from `cdl.tables.collect`.
        outputs: files to write, the suffix decides the format.
    """
    methods = list(dict.fromkeys(curves["method"]))
    distilled = curves[curves["teacher"] != ""]
    pairs = list(dict.fromkeys(zip(distilled["teacher"], distilled["student"], strict=True)))
    pairs = pairs or [("", name) for name in dict.fromkeys(curves["student"])]
    panels = [(pair, method) for pair in pairs for method in methods]
    columns = min(len(methods), 3)
    rows = math.ceil(len(panels) / columns)
    figure, axes = pyplot.subplots(
        rows,
        columns,
        squeeze=False,
        sharey=True,
        layout="constrained",
        figsize=(2.6 * columns + 1.4, 2.4 * rows),
    )
    names = [name for name in dict.fromkeys(_names(curves)) if name != "teacher"]
    styles = {"teacher": _style("black", 0)}
    styles |= {name: _style(_COLOURS[i % len(_COLOURS)], i + 1) for i, name in enumerate(names)}
    for axis, ((teacher, student), method) in zip(axes.flat, panels, strict=False):
        _panel(axis, curves[curves["method"] == method], teacher, student, styles)
        axis.set_title(method if len(pairs) == 1 else f"{method}, {teacher} to {student}")
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for line in axes:
        line[0].set_ylabel("average accuracy (%)")
    for axis in axes[-1]:
        axis.set_xlabel("tasks learnt")
    drawn = {}
    for axis in axes.flat:
        handles, labels = axis.get_legend_handles_labels()
        drawn |= dict(zip(labels, handles, strict=True))
    figure.legend(drawn.values(), drawn.keys(), loc="outside right center")
    for output in outputs:
        kind = output.rsplit(".", 1)[-1]
        metadata = {"Date": None} if kind == "svg" else None
        with replacing(output) as temporary:
            figure.savefig(temporary, format=kind, dpi=200, metadata=metadata)
    pyplot.close(figure)


def _names(curves: pd.DataFrame) -> pd.Series:
    names = curves["kd"] + curves["variant"].map(lambda v: f" ({v})" if v else "")
    return names.where(curves["role"] == "student", "teacher")


def _style(colour: str, i: int) -> dict[str, Any]:
    return {
        "color": colour,
        "marker": _MARKERS[i % len(_MARKERS)],
        "markersize": 4,
        "linestyle": _DASHES[i % len(_DASHES)],
        "linewidth": 1.2,
    }


def _panel(
    axis: pyplot.Axes, curves: pd.DataFrame, teacher: str, student: str, styles: dict[str, Any]
) -> None:
    is_teacher = (curves["role"] == "teacher") & (curves["student"] == teacher)
    is_student = (curves["role"] == "student") & (curves["student"] == student)
    kept = curves[
        (is_teacher & curves["query"].isin([teacher, student]))
        | (is_student & curves["teacher"].isin(["", teacher]))
    ]
    for name, group in kept.groupby(_names(kept), sort=False):
        by_stage = group.groupby("stage")["accuracy"]
        mean, std = by_stage.mean(), by_stage.std().fillna(0)
        axis.plot(mean.index + 1, mean, label=name, **styles[name])
        if std.any():
            band = {"color": styles[name]["color"], "alpha": 0.12, "linewidth": 0}
            axis.fill_between(mean.index + 1, mean - std, mean + std, **band)
    axis.set_xticks(sorted(set(kept["stage"] + 1)))
    axis.grid(alpha=0.25, linewidth=0.5)
