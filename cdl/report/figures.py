"""Figures for print: no colour is needed to tell two lines apart."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cdl.report.files import RunFiles
from cdl.report.paired_gains import paired_gains
from cdl.report.tables import differences, read, read_predictions
from cdl.runtime.artifacts import read_json, replacing, write_json

STYLE: dict[Any, Any] = {
    "svg.hashsalt": "cdl",  # equal input, equal bytes
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}
# Okabe and Ito's palette, safe for colour-blind readers; markers and dashes for print
_COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#999933"]
_MARKERS = "osD^vP*X<p>h"
_DASHES = ["-", "--", "-.", ":"]
FIGURES = ("accuracy", "forgetting", "gain", "cost")


class _Panel(NamedTuple):
    """A method with one pair of teacher and student, and the rows that belong there."""

    title: str
    rows: pd.DataFrame


def write_figures(
    dataset: str, tables: Any, outputs: Any, files: Callable[[str], RunFiles]
) -> None:
    """Draw and write all figures of a dataset, as SVG and PNG.

    Args:
        dataset: its name in the tables.
        tables: paths of the tables, `curves`, `results` and `cost`, and of their records,
            `protocols` and `cost_record`.
        outputs: by the figure's name the SVG's path, with `_png` behind it the PNG's; and the
            `record` that vouches for them.
        files: from a run's folder to its files.
    """
    out = {name: [outputs[name], outputs[f"{name}_png"]] for name in FIGURES}
    found = [read(path, tables.protocols) for path in (tables.curves, tables.results)]
    found.append(read(tables.cost, tables.cost_record))
    curves, runs, cost = (table[table["dataset"] == dataset] for table in found)
    matrices = {
        run: np.array(read_json(files(run).results)["matrix"], float) for run in runs["run"]
    }
    gained = paired_gains(runs, lambda run: read_predictions(files(run)))
    accuracy_over_tasks(curves, out["accuracy"])
    forgetting(runs, matrices, out["forgetting"])
    gain_over_none(gained, differences(runs), out["gain"])
    cost_against_accuracy(runs, cost, out["cost"])
    write_json(outputs.record, {}, files=[path for paths in out.values() for path in paths])


@matplotlib.rc_context(STYLE)
def accuracy_over_tasks(curves: pd.DataFrame, outputs: Sequence[str]) -> None:
    """Draw the mean accuracy over the tasks seen, against the number of tasks learnt.

    One panel per method and pair of teacher and student; mean over seeds with a band of one
    sample standard deviation where there are several.

    Args:
        curves: rows of one dataset from `cdl.report.tables.collect`.
        outputs: files to write, the suffix decides the format.
    """
    styles = _styles(curves)
    panels = _panels(curves)
    figure, axes = _canvas(panels, "tasks learnt", "average accuracy (%)", sharey=True)
    for axis, panel in zip(axes, panels, strict=True):
        for name, group in panel.rows.groupby(_names(panel.rows), sort=False):
            by_stage = group.groupby("stage")["accuracy"]
            mean, std = by_stage.mean(), by_stage.std().fillna(0)
            axis.plot(mean.index + 1, mean, label=name, linewidth=1.2, **styles[name])
            if std.any():
                band = {"color": styles[name]["color"], "alpha": 0.12}
                axis.fill_between(mean.index + 1, mean - std, mean + std, linewidth=0, **band)
        axis.set_xticks(sorted(set(panel.rows["stage"] + 1)))
    _legend(figure, axes)
    _save(figure, outputs)


@matplotlib.rc_context(STYLE)
def forgetting(
    results: pd.DataFrame, matrices: Mapping[str, np.ndarray], outputs: Sequence[str]
) -> None:
    """Draw the accuracy on every task after every task, averaged over seeds.

    One row per method and pair, one column per learner. Reading down a column of a panel shows a
    task being forgotten; the diagonal is the accuracy on a task just learnt.

    Args:
        results: runs of one dataset from `cdl.report.tables.collect`.
        matrices: `R`, `[T, T]`, percent, of every run by its folder.
        outputs: files to write, the suffix decides the format.
    """
    several = results[results["n_tasks"] > 1]  # after one task there is nothing to forget
    panels = _panels(several if len(several) else results)
    names = list(dict.fromkeys(name for panel in panels for name in _names(panel.rows)))
    shown = [matrices[run] for panel in panels for run in panel.rows["run"]]
    low, top = (limit(list(map(limit, shown))) for limit in (np.nanmin, np.nanmax))
    words = max(len(word) for name in names for word in name.split(" "))
    side = max(1.1, 0.075 * words, min(0.16 * max(map(len, shown)), 2.0))
    size = (side * len(names) + 1.5, (side + 0.1) * len(panels) + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(panels), len(names), squeeze=False)
    for line, panel in zip(axes, panels, strict=True):
        groups = dict(iter(panel.rows.groupby(_names(panel.rows), sort=False)))
        line[0].set_ylabel(panel.title.replace(", ", "\n"), fontweight="bold")
        for axis, name in zip(line, names, strict=True):
            axis.spines[:].set_visible(False)
            axis.set_xticks([])
            axis.set_yticks([])
            if panel is panels[0]:
                axis.set_title(name.replace(" (", "\n("), fontsize=8, fontweight="bold")
            if name in groups:
                matrix = np.mean([matrices[run] for run in groups[name]["run"]], axis=0)
                image = _heat(axis, matrix, (low, top), side)
    figure.supxlabel("accuracy on task", fontsize=8)
    figure.supylabel("after learning task", fontsize=8)
    bar = figure.colorbar(image, ax=axes, aspect=12 * len(panels), fraction=0.02)
    bar.set_label("accuracy (%)")
    bar.outline.set_visible(False)
    _save(figure, outputs)


@matplotlib.rc_context(STYLE)
def gain_over_none(gains: pd.DataFrame, runs: pd.DataFrame, outputs: Sequence[str]) -> None:
    """Draw what each distiller gains over the undistilled student.

    One panel per method and pair; the mean over seeds with its interval, and every seed as a
    small circle.

    Args:
        gains: rows of one dataset from `cdl.report.paired_gains`; empty is a figure that says so.
        runs: runs of the dataset from `cdl.report.tables.differences`.
        outputs: files to write, the suffix decides the format.
    """
    if gains.empty:
        figure = Figure(figsize=(5, 1))
        figure.text(0.5, 0.5, "no distilled student has an undistilled one beside it", ha="center")
        return _save(figure, outputs)
    gains = gains.assign(role="student")
    styles, panels = _styles(runs), _panels(gains)
    names = list(dict.fromkeys(_names(gains)))
    over = " or ".join(dict.fromkeys(gains["over"]))
    label = f"gain over none (points), 95 % interval over {over}"
    height = 0.7 + 0.22 * len(names)
    figure, axes = _canvas(panels, label, "", height, sharex=True, sharey=True)
    for axis, panel in zip(axes, panels, strict=True):
        axis.axvline(0, color="black", linewidth=0.8)
        for name, (_, row) in zip(_names(panel.rows), panel.rows.iterrows(), strict=True):
            y, style = names.index(name), styles[name] | {"linestyle": "none", "markersize": 5}
            axis.hlines(y, row["low"], row["high"], color=style["color"], linewidth=1.4)
            axis.plot(row["gain"], y, **style)
            own = runs[(_names(runs) == name) & (runs[_SAME] == row[_SAME]).all(axis=1)]
            if len(own) > 1:
                axis.plot(own["gain_over_none"], [y + 0.25] * len(own), "o", **_CIRCLE)
        axis.set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    _save(figure, outputs)


@matplotlib.rc_context(STYLE)
def cost_against_accuracy(
    results: pd.DataFrame, cost: pd.DataFrame, outputs: Sequence[str]
) -> None:
    """Draw final average accuracy against training time, mean and deviation over seeds.

    Args:
        results: runs of one dataset from `cdl.report.tables.collect`.
        cost: the same rows of its table of costs.
        outputs: files to write, the suffix decides the format.
    """
    results = results.assign(training_seconds=cost["training_seconds"])
    styles, panels = _styles(results), _panels(results)
    x, y = "training time of all tasks (s)", "final average accuracy (%)"
    figure, axes = _canvas(panels, x, y, sharex=True, sharey=True)
    for axis, panel in zip(axes, panels, strict=True):
        for name, group in panel.rows.groupby(_names(panel.rows), sort=False):
            seconds, accuracy = group["training_seconds"], group["final_average_accuracy"]
            style = styles[name] | {"linestyle": "none", "markersize": 6, "elinewidth": 0.6}
            style |= {"markeredgecolor": "white", "markeredgewidth": 0.5}
            errors: dict[str, Any] = {}
            if len(group) > 1:
                errors = {"xerr": seconds.std(), "yerr": accuracy.std()}
            axis.errorbar(seconds.mean(), accuracy.mean(), label=name, **errors, **style)
    axes[0].set_xlim(left=0)
    _legend(figure, axes)
    _save(figure, outputs)


_SAME = ["method", "teacher", "student", "query"]
_CIRCLE: dict[str, Any] = {
    "markersize": 2.5,
    "markerfacecolor": "none",
    "markeredgecolor": "#444444",
}


def _names(table: pd.DataFrame) -> pd.Series:
    names = table["kd"] + table["variant"].map(lambda v: f" ({v})" if v else "")
    return names.where(table["role"] == "student", "teacher")


def _styles(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """One look per learner, the same in all figures of a dataset."""
    names = ["teacher", *(name for name in dict.fromkeys(_names(table)) if name != "teacher")]
    colours = ["black", *_COLOURS]
    return {
        name: {
            "color": colours[i] if i < len(colours) else _COLOURS[(i - 1) % len(_COLOURS)],
            "marker": _MARKERS[i % len(_MARKERS)],
            "markersize": 4,
            "linestyle": _DASHES[i % len(_DASHES)],
        }
        for i, name in enumerate(names)
    }


def _panels(table: pd.DataFrame) -> list[_Panel]:
    """Split rows into panels, each with its teacher; panels without rows are left out."""
    distilled = table[table["teacher"] != ""]
    pairs = list(dict.fromkeys(zip(distilled["teacher"], distilled["student"], strict=True)))
    pairs = pairs or [("", name) for name in dict.fromkeys(table["student"])]
    panels = []
    for teacher, student in pairs:
        is_teacher = (table["role"] == "teacher") & (table["student"] == teacher)
        is_student = (table["role"] == "student") & (table["student"] == student)
        of_pair = (is_teacher & table["query"].isin([teacher, student])) | (
            is_student & table["teacher"].isin(["", teacher])
        )
        for method in dict.fromkeys(table["method"]):
            rows = table[of_pair & (table["method"] == method)]
            title = method if len(pairs) == 1 else f"{method}, {teacher} to {student}"
            if len(rows):
                panels.append(_Panel(title, rows))
    return panels


def _canvas(
    panels: Sequence[_Panel], x: str, y: str, height: float = 2.4, **shared: Any
) -> tuple[Figure, list[Axes]]:
    """Return a figure and an axis for each panel, at most three abreast."""
    columns = min(len(panels), 3)
    lines = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(2.6 * columns + 1.4, height * lines), layout="constrained")
    axes = list(figure.subplots(lines, columns, squeeze=False, **shared).flat)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    for axis, panel in zip(axes, panels, strict=False):
        axis.set_title(panel.title.replace(", ", "\n"))
        axis.grid(alpha=0.25, linewidth=0.5)
    for axis in axes[max(0, len(panels) - columns) : len(panels)]:
        axis.tick_params(labelbottom=True)  # also where no panel lies below a shared axis
    figure.supxlabel(x, fontsize=8)
    figure.supylabel(y, fontsize=8)
    return figure, axes[: len(panels)]


def _heat(axis: Axes, matrix: np.ndarray, limits: tuple[float, float], side: float) -> Any:
    """Draw a matrix with its numbers, as far as they can be read."""
    tasks = len(matrix)
    low, top = limits
    image = axis.imshow(matrix, cmap="cividis", vmin=low, vmax=top)
    size = min(7.0, 72 * 0.85 * side / tasks / 1.9)
    if size >= 3:
        for t, i in zip(*np.tril_indices(tasks), strict=True):
            colour = "white" if matrix[t, i] < low + 0.55 * (top - low) else "black"
            number: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": size}
            axis.text(int(i), int(t), f"{matrix[t, i]:.0f}", color=colour, **number)
    ticks = range(0, tasks, math.ceil(tasks / 6))
    names = [str(t + 1) for t in ticks]
    axis.set_xticks(ticks, names)
    axis.set_yticks(ticks, names)
    axis.tick_params(length=0, labelsize=6)
    return image


def _legend(figure: Figure, axes: Sequence[Axes]) -> None:
    drawn: dict[str, Artist] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        drawn |= dict(zip(labels, handles, strict=True))
    figure.legend(list(drawn.values()), list(drawn), loc="outside right center")


def _save(figure: Figure, outputs: Sequence[str]) -> None:
    for output in outputs:
        kind = output.rsplit(".", 1)[-1]
        metadata = {"Date": None} if kind == "svg" else None
        with replacing(output) as temporary:
            figure.savefig(temporary, format=kind, dpi=200, metadata=metadata)
