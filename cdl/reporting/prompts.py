"""Figure of the prompts that learners choose for the test images of each task."""

import math
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from cdl.layout import IMAGES, RunFiles
from cdl.reporting.panels import learners_of, of_dataset
from cdl.reporting.style import PAGE, about, paper, save, small_print
from cdl.reporting.tables import read
from cdl.runtime.artifacts import check_files, write_json

NOTE = (
    "mean weight of a prompt over the test examples of a task (of methods that select prompts: "
    "share of the examples that use it), after the last task; prompts in groups by the task that "
    "added them, as means over blocks, or in groups by block if all tasks share them; difference "
    "of tasks: total variation distance of the weights, mean over pairs of tasks, 0 % if all "
    "tasks use the same prompts, 100 % if none is used by two tasks"
)


def write_prompt_figure(
    dataset: str, tables: Any, outputs: Any, files: Callable[[str], RunFiles]
) -> None:
    """Draw and write the figure of a dataset, in all formats of `IMAGES`.

    Args:
        dataset: its name in the tables.
        tables: paths of the table `results`, its record `protocols`, and the tables `prompts` of
            the runs whose choice of prompts is drawn.
        outputs: paths by format, and of the `record` with the hashes of all files.
        files: maps the folder of a run to its files.

    Raises:
        CdlError: a table does not match its record.
    """
    every, images = read(tables.results, tables.protocols), [outputs[kind] for kind in IMAGES]
    runs = of_dataset(dataset, every, every)
    save(prompt_use(runs, read_prompt_use(runs, tables.prompts, files)), images)
    write_json(outputs.record, {}, files=images)


def read_prompt_use(
    runs: pd.DataFrame, tables: Sequence[str], files: Callable[[str], RunFiles]
) -> dict[str, pd.DataFrame]:
    """Read the tables of `cdl.evaluation.prompts` of some runs, by folder.

    Args:
        runs: rows of `cdl.reporting.runs.tables_of`.
        tables: paths of the tables to read; a run without one of them is left out.
        files: maps the folder of a run to its files.

    Raises:
        CdlError: a table does not match its record.
    """
    use = {}
    for run in runs["run"]:
        run_files = files(run)
        if any(table.endswith(run_files.prompts) for table in tables):
            check_files(run_files.prompting.record, run_files.prompts)
            use[run] = pd.read_csv(run_files.prompts)
    return use


def difference_of_tasks(use: pd.DataFrame) -> float:
    """Return how much the choices of tasks differ, in percent; NaN for a single task.

    The total variation distance of the absolute weights of two tasks, which are divided by their
    sum, mean over pairs of tasks and blocks.

    Args:
        use: from `read_prompt_use`.
    """
    distances = []
    for _, rows in use.groupby("layer"):
        weights = rows.pivot(index="task", columns="prompt", values="weight").abs().to_numpy()
        shares = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
        distances += [np.abs(a - b).sum() / 2 for a, b in combinations(shares, 2)]
    return 100 * float(np.mean(distances)) if distances else float("nan")


@paper()
def prompt_use(runs: pd.DataFrame, use: dict[str, pd.DataFrame]) -> Figure:
    """Draw the weight of every prompt by task of the images, a heat map per learner.

    Args:
        runs: runs of one dataset from `cdl.reporting.runs.tables_of`.
        use: from `read_prompt_use`.
    """
    shown = [(panel, run) for panel in learners_of(runs) for run in panel.rows["run"] if run in use]
    lines = math.ceil(len(shown) / 2)
    tasks = runs["n_tasks"].max()
    height = 0.6 + 0.065 * max(tasks, 5)
    figure = Figure(figsize=(PAGE, height * lines + 0.9), layout="constrained")
    drawn = runs[runs["run"].isin(use)]
    small_print(figure, about(drawn, None, NOTE))
    axes = list(figure.subplots(lines, 2, squeeze=False).flat)
    for axis in axes[len(shown) :]:
        axis.set_axis_off()
    for axis, (panel, run) in zip(axes, shown, strict=False):
        image = _heat_map(axis, use[run])
        bar = figure.colorbar(image, ax=axis, aspect=8, fraction=0.05, pad=0.02)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=6, length=0)
        differ = difference_of_tasks(use[run])
        text = "" if math.isnan(differ) else f", tasks differ by {differ:.0f} %"
        axis.set_title(panel.title + text, fontweight="bold", fontsize=7)
    figure.supylabel("task of the examples", fontsize=8)
    return figure


def _heat_map(axis: Axes, use: pd.DataFrame) -> AxesImage:
    """Draw weights by task of the images and prompt, and return the image."""
    shared = use["added_by"].isna().all()
    group = "layer" if shared else "added_by"
    table = use.pivot_table(
        index="task", columns=[group, "prompt"], values="weight", aggfunc="mean"
    )
    weights, groups = table.to_numpy(), table.columns.get_level_values(0)
    top = np.abs(weights).max() or 1.0
    signed = weights.min() < 0
    scale = {"cmap": "PuOr", "vmin": -top} if signed else {"cmap": "cividis", "vmin": 0.0}
    image = axis.imshow(weights, aspect="auto", interpolation="none", vmax=top, **scale)
    starts = [0, *(np.flatnonzero(np.diff(groups)) + 1), len(groups)]
    for start in starts[1:-1]:
        axis.axvline(start - 0.5, color="black", linewidth=0.5)
    middles = [(a + b - 1) / 2 for a, b in zip(starts, starts[1:], strict=False)]
    first = 0 if shared else 1  # blocks are counted from 0, tasks from 1
    names = [f"{int(groups[a]) + first}" for a in starts[:-1]]
    step = math.ceil(len(names) / 12)
    axis.set_xticks(middles[::step], names[::step])
    axis.set_xlabel("block of the prompts" if shared else "task that added the prompts", fontsize=6)
    axis.set_yticks(range(0, len(table), math.ceil(len(table) / 6)))
    axis.set_yticklabels([str(t + 1) for t in axis.get_yticks()])
    axis.tick_params(length=0, labelsize=6)
    axis.spines[:].set_visible(False)
    return image
