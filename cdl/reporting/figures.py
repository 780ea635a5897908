"""Figures for print; lines also differ in marker and dash, so they need no colour."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cdl.layout import IMAGES, RunFiles
from cdl.reporting.columns import CELL
from cdl.reporting.losses import losses_over_epochs, read_losses
from cdl.reporting.names import named, names
from cdl.reporting.panels import HeldOut, of_dataset, panels_of
from cdl.reporting.style import (
    PAGE,
    about,
    canvas,
    draw_band,
    label_lines,
    legend,
    look,
    nothing,
    paper,
    save,
    small_print,
)
from cdl.reporting.summary import differences
from cdl.reporting.tables import read
from cdl.reporting.text import INTERVAL, either
from cdl.runtime.artifacts import read_json, write_json


def write_figures(
    dataset: str, tables: Any, outputs: Any, files: Callable[[str], RunFiles]
) -> None:
    """Draw and write all figures of a dataset, in all formats of `IMAGES`.

    Args:
        dataset: its name in the tables.
        tables: paths of the tables `curves`, `results`, `intervals` and `cost`, and of their
            records `protocols`, `summary_record` and `cost_record`.
        outputs: paths of the SVG by the name of the figure, of other formats by `NAME_FORMAT`,
            and of the `record` with the hashes of all files.
        files: maps the folder of a run to its files.

    Raises:
        CdlError: a table does not match its record.
    """
    every_run = read(tables.results, tables.protocols)
    curves, runs, cells, cost = (
        of_dataset(dataset, every_run, named(table))
        for table in (
            read(tables.curves, tables.protocols),
            every_run,
            read(tables.intervals, tables.summary_record),
            read(tables.cost, tables.cost_record),
        )
    )
    contents = {run: read_json(files(run).results) for run in runs["run"]}
    matrices = {run: np.array(content["matrix"], float) for run, content in contents.items()}
    test = HeldOut.of(contents[runs["run"].iloc[0]])
    figures = {
        "accuracy": accuracy_over_tasks(curves, test),
        "forgetting": forgetting(runs, matrices, test),
        "gain": gain_over_baseline(cells, differences(runs), test),
        "cost": cost_against_accuracy(runs, cost),
        "losses": losses_over_epochs(runs, read_losses(runs, files)),
    }
    written = []
    for name, figure in figures.items():
        paths = [outputs[name if kind == "svg" else f"{name}_{kind}"] for kind in IMAGES]
        save(figure, paths)
        written += paths
    write_json(outputs.record, {}, files=written)


@paper()
def accuracy_over_tasks(curves: pd.DataFrame, test: HeldOut) -> Figure:
    """Draw the mean accuracy over the tasks seen against the number of tasks learnt.

    One panel per method and pair of teacher and student: the mean over seeds and, with several
    seeds, a band from the lowest to the highest.

    Args:
        curves: rows of one dataset from `cdl.reporting.runs.tables_of`.
        test: the test set.
    """
    panels = panels_of(curves)
    band_of = "mean, band from lowest to highest seed" if curves["seed"].nunique() > 1 else ""
    note = about(curves, test.images, band_of) + f"; chance at the end {test.chance:.1f} %"
    x, y = "tasks learnt", "average accuracy (%)"
    figure, axes = canvas([panel.title for panel in panels], x, y, note, sharey=True)
    for axis, panel in zip(axes, panels, strict=True):
        for name, group in panel.rows.groupby(names(panel.rows), sort=False):
            by_stage = group.groupby("stage")["accuracy"]
            mean, style = by_stage.mean(), look(name)
            axis.plot(mean.index + 1, mean, label=name, **style.line)
            draw_band(axis, mean.index + 1, by_stage.min(), by_stage.max(), style.colour)
        tasks = panel.rows["stage"].max() + 1
        axis.set_xticks(range(1, tasks + 1, math.ceil(tasks / 10)))
    if len(panels) > 2:
        legend(figure, axes)
    else:
        _label_ends(axes)
    return figure


@paper()
def forgetting(results: pd.DataFrame, matrices: Mapping[str, np.ndarray], test: HeldOut) -> Figure:
    """Draw the accuracy on every task after every task, averaged over seeds.

    One row per method and pair, one column per learner. A column of a heat map shows how a task is
    forgotten; the diagonal is the accuracy on a task that was just learnt.

    Args:
        results: runs of one dataset from `cdl.reporting.runs.tables_of`.
        matrices: `R`, `[T, T]`, in percent, by the folder of the run.
        test: the test set.
    """
    several = results[results["n_tasks"] > 1]  # with one task there is no forgetting
    panels = panels_of(several if len(several) else results)
    learners = list(dict.fromkeys(name for panel in panels for name in names(panel.rows)))
    drawn = [matrices[run] for panel in panels for run in panel.rows["run"]]
    low, top = (limit(list(map(limit, drawn))) for limit in (np.nanmin, np.nanmax))
    side = max(1.0, (PAGE - 1.0) / max(len(learners), 5))
    size = (side * len(learners) + 1.0, (0.9 * side + 0.1) * len(panels) + 0.8)
    figure = Figure(figsize=size, layout="constrained")
    small_print(figure, about(results, test.images, "mean over seeds, R[t][i] in percent"))
    axes = figure.subplots(len(panels), len(learners), squeeze=False)
    for line, panel in zip(axes, panels, strict=True):
        groups = dict(iter(panel.rows.groupby(names(panel.rows), sort=False)))
        line[0].set_ylabel(panel.title, fontweight="bold")
        for axis, name in zip(line, learners, strict=True):
            axis.spines[:].set_visible(False)
            axis.set_xticks([])
            axis.set_yticks([])
            if panel is panels[0]:
                title = name.replace(" (", "\n(").replace(", ", ",\n")
                axis.set_title(title, fontsize=7, fontweight="bold")
            if name in groups:
                matrix = np.mean([matrices[run] for run in groups[name]["run"]], axis=0)
                image = _heat(axis, matrix, (low, top), side)
    figure.supxlabel("accuracy on task", fontsize=8)
    figure.supylabel("after learning task", fontsize=8)
    bar = figure.colorbar(image, ax=axes, aspect=12 * len(panels), fraction=0.02)
    bar.set_label("accuracy (%)")
    bar.outline.set_visible(False)
    return figure


@paper()
def gain_over_baseline(cells: pd.DataFrame, runs: pd.DataFrame, test: HeldOut) -> Figure:
    """Draw the gain of each distiller over its baseline.

    One panel per method and pair: the mean over seeds with its interval, and every seed as a
    small circle.

    Args:
        cells: rows of one dataset from `cdl.reporting.intervals`; gains may be missing.
        runs: runs of the dataset from `cdl.reporting.summary.differences`.
        test: the test set.
    """
    gains = cells[cells["gain"].notna()]
    if gains.empty:
        return nothing("no baseline: nothing to compare")
    panels = panels_of(gains)
    learners = list(dict.fromkeys(names(gains)))
    over = f"{INTERVAL} {either(gains['over'])}, paired"
    note = about(runs, test.images, over)
    height = 0.75 + 0.24 * len(learners)
    titles = [panel.title for panel in panels]
    label = f"gain over {either(gains['baseline'])} (points)"
    figure, axes = canvas(titles, label, "", note, height, sharex=True, sharey=True)
    for axis, panel in zip(axes, panels, strict=True):
        axis.axvline(0, color="black", linewidth=0.8)
        for name, (_, row) in zip(names(panel.rows), panel.rows.iterrows(), strict=True):
            y, style = learners.index(name), look(name)
            axis.hlines(y, row["gain_low"], row["gain_high"], color=style.colour, linewidth=1.6)
            axis.plot(row["gain"], y, **style.point)
            own = runs[(runs[CELL] == row[CELL]).all(axis=1)]
            if len(own) > 1:
                axis.plot(own["gain_over_baseline"], [y + 0.28] * len(own), "o", **_CIRCLE)
        axis.set_yticks(range(len(learners)), learners)
        axis.tick_params(axis="y", length=0)
    axes[0].set_ylim(len(learners) - 0.35, -0.65)
    return figure


@paper()
def cost_against_accuracy(results: pd.DataFrame, cost: pd.DataFrame) -> Figure:
    """Draw final average accuracy against cost, mean and standard deviation over seeds.

    One plot per panel and measure of `_COSTS` that is known for all runs. If the measure includes
    a share of the teacher's cost, a dotted line connects it with the student's own cost.

    Args:
        results: runs of one dataset from `cdl.reporting.runs.tables_of`.
        cost: the same rows of the table of costs.
    """
    known = [name for name in _COSTS if cost[name].notna().all()]
    own = [_COSTS[name][0] for name in known]
    results = results.assign(**{name: cost[name] for name in {*known, *own}})
    plots = [(panel, name) for panel in panels_of(results) for name in known]
    several = results["seed"].nunique() > 1
    note = about(results, None, "bars: sample standard deviation over seeds" if several else "")
    titles = [panel.title for panel, _ in plots]
    figure, axes = canvas(titles, "", "final average accuracy (%)", note, sharey=True)
    for axis, (panel, measure) in zip(axes, plots, strict=True):
        alone, label = _COSTS[measure]
        axis.set_xlabel(label)
        for name, group in panel.rows.groupby(names(panel.rows), sort=False):
            spent, accuracy = group[measure], group["final_average_accuracy"]
            errors: dict[str, Any] = {"elinewidth": 0.6}
            if len(group) > 1:
                errors |= {"xerr": spent.std(), "yerr": accuracy.std()}
            point = look(name).point
            axis.errorbar(spent.mean(), accuracy.mean(), label=name, **errors, **point)
            line = {"color": point["color"], "linewidth": 0.8, "linestyle": ":", "label": "_share"}
            axis.hlines(accuracy.mean(), group[alone].mean(), spent.mean(), **line)
        axis.set_xlim(0, 1.12 * (panel.rows[measure].max() or 1.0))
        axis.ticklabel_format(axis="x", style="sci", scilimits=(-3, 5))
    legend(figure, axes)
    return figure


_COSTS = {  # column of costs: column of the learner's own part, and the label of the axis
    "training_seconds": ("training_seconds", "time of the jobs of all tasks (s)"),
    "total_tflops": ("tflops", "10$^{12}$ operations,\nwith the share of the teacher"),
}
_CIRCLE: dict[str, Any] = {
    "markersize": 2.5,
    "markerfacecolor": "none",
    "markeredgecolor": "#444444",
}


def _label_ends(axes: Sequence[Axes]) -> None:
    """Write the name of each line behind its end."""
    for axis in axes:
        ends = {}
        for line in axis.get_lines():
            (x, y) = (np.asarray(values, float)[-1] for values in line.get_data())
            ends[str(line.get_label())] = (float(x), float(y))
        label_lines(axis, ends)


def _heat(axis: Axes, matrix: np.ndarray, limits: tuple[float, float], side: float) -> Any:
    """Draw a matrix as a heat map, with its numbers if they are legible."""
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
