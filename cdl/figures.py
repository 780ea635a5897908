"""Figures for print: no colour is needed to tell two lines apart."""

from collections.abc import Sequence

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

    One column per method, one row per pair of teacher and student; mean over seeds with a band
    of one sample standard deviation where there are several.

    Args:
        curves: rows of one dataset from `cdl.tables.collect`.
        outputs: files to write, the suffix decides the format.
    """
    methods = list(dict.fromkeys(curves["method"]))
    distilled = curves[curves["teacher"] != ""]
    pairs = list(dict.fromkeys(zip(distilled["teacher"], distilled["student"], strict=True)))
    pairs = pairs or [("", name) for name in dict.fromkeys(curves["student"])]
    figure, axes = pyplot.subplots(
        len(pairs),
        len(methods),
        squeeze=False,
        sharey="row",
        layout="constrained",
        figsize=(3.2 * len(methods) + 1.4, 2.8 * len(pairs)),
    )
    for line, (teacher, student) in zip(axes, pairs, strict=True):
        for axis, method in zip(line, methods, strict=True):
            _panel(axis, curves[curves["method"] == method], teacher, student)
            axis.set_title(method)
        line[0].set_ylabel(f"{teacher or '-'} to {student}\naverage accuracy (%)")
        line[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    for axis in axes[-1]:
        axis.set_xlabel("tasks learnt")
    for output in outputs:
        kind = output.rsplit(".", 1)[-1]
        metadata = {"Date": None} if kind == "svg" else None
        with replacing(output) as temporary:
            figure.savefig(temporary, format=kind, dpi=200, metadata=metadata)
    pyplot.close(figure)


def _panel(axis: pyplot.Axes, curves: pd.DataFrame, teacher: str, student: str) -> None:
    kept = curves[
        (
            (curves["role"] == "teacher")
            & (curves["student"] == teacher)
            & curves["query"].isin([teacher, student])
        )
        | (
            (curves["role"] == "student")
            & (curves["student"] == student)
            & curves["teacher"].isin(["", teacher])
        )
    ]
    names = kept["kd"] + kept["variant"].map(lambda v: f" ({v})" if v else "")
    names = names.where(kept["role"] == "student", "teacher")
    for i, (name, group) in enumerate(kept.groupby(names, sort=False)):
        by_stage = group.groupby("stage")["accuracy"]
        mean, std = by_stage.mean(), by_stage.std().fillna(0)
        colour = "black" if name == "teacher" else _COLOURS[i % len(_COLOURS)]
        style = {
            "color": colour,
            "marker": _MARKERS[i % len(_MARKERS)],
            "markersize": 4,
            "linestyle": _DASHES[i % len(_DASHES)],
            "linewidth": 1.2,
        }
        axis.plot(mean.index + 1, mean, label=name, **style)
        if std.any():
            axis.fill_between(
                mean.index + 1, mean - std, mean + std, color=colour, alpha=0.12, linewidth=0
            )
    axis.set_xticks(sorted(set(kept["stage"] + 1)))
    axis.grid(alpha=0.25, linewidth=0.5)
