"""Figure of the training losses: every part of the objective, over the epochs of all tasks."""

import math
from collections.abc import Callable
from itertools import cycle
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cdl.layout import RunFiles, record_of
from cdl.reporting.panels import learners_of
from cdl.reporting.style import about, canvas, draw_band, legend, nothing, paper
from cdl.runtime.artifacts import check_files
from cdl.runtime.facts import Look

_LOOKS = (  # of the parts of an objective; the first is the cross-entropy
    *(Look("#505A64", "o", "-"), Look("#0072B2", "s", "--"), Look("#D55E00", "^", "-.")),
    *(Look("#009E73", "D", ":"), Look("#9B5FA8", "v", "-"), Look("#7A4E2D", "P", "--")),
)


def read_losses(runs: pd.DataFrame, files: Callable[[str], RunFiles]) -> pd.DataFrame:
    """Read the losses of all runs that take gradient steps.

    Args:
        runs: rows of `cdl.reporting.runs.tables_of`.
        files: maps the folder of a run to its files.

    Returns:
        One row per run, task, epoch and part of the objective that is not always 0: `run`, `part`,
        `value`, the mean over the steps of the epoch, and `at`, the number of epochs before it.

    Raises:
        CdlError: a file does not match the record of its checkpoint.
    """
    tables = []
    for row in runs.to_dict("records"):
        before = 0
        for t in range(row["n_tasks"]):
            task = files(row["trained_run"]).task(t)
            check_files(record_of(task.learner), task.losses)
            losses = pd.read_csv(task.losses)
            losses = losses[(losses["learning_rate"] > 0) & (losses["part"] != "total")]
            at = before + losses["epoch"]
            tables.append(
                losses.assign(run=row["run"], at=at)[["run", "task", "part", "at", "value"]]
            )
            before = at.max() + 1 if len(at) else before
    losses = pd.concat(tables, ignore_index=True)
    used = losses.groupby(["run", "part"])["value"].transform(lambda values: values.any())
    return losses[used.astype(bool)]


@paper()
def losses_over_epochs(runs: pd.DataFrame, losses: pd.DataFrame) -> Figure:
    """Draw the losses of every learner, mean and range over seeds; lines separate the tasks.

    Args:
        runs: runs of one dataset from `cdl.reporting.runs.tables_of`.
        losses: from `read_losses`.
    """
    shown = [panel for panel in learners_of(runs) if losses["run"].isin(panel.rows["run"]).any()]
    if not shown:
        return nothing("no learner takes gradient steps: there are no losses")
    looks = dict(zip(dict.fromkeys(losses["part"]), cycle(_LOOKS), strict=False))
    seeds = "; band from lowest to highest seed" if runs["seed"].nunique() > 1 else ""
    note = about(runs, None, f"mean of each part of the objective over an epoch{seeds}")
    titles, x = [panel.title for panel in shown], "epochs, in tasks separated by lines"
    figure, axes = canvas(titles, x, "training loss", note, 1.4, sharey=True)
    for axis, panel in zip(axes, shown, strict=True):
        _draw(axis, losses[losses["run"].isin(panel.rows["run"])], looks)
    low, high = losses["value"].min(), losses["value"].max()
    if low > 0 and high > 100 * low:
        axes[0].set_yscale("log")
    else:
        axes[0].set_ylim(bottom=min(0.0, low))
    legend(figure, axes)
    return figure


def _draw(axis: Axes, losses: pd.DataFrame, looks: dict[str, Look]) -> None:
    """Draw the parts of one learner's objective."""
    for part, group in losses.groupby("part", sort=False):
        look = looks[str(part)]
        for _, rows in group.groupby("task"):  # a line does not connect tasks
            values = rows.groupby("at")["value"]
            style: dict[str, Any] = {**look.line, "markersize": 2.5, "linewidth": 1.0}
            axis.plot(values.mean(), label=part, **style)
            low, high = values.min(), values.max()
            draw_band(axis, low.index, low, high, look.colour)
            axis.vlines(low.index, low, high, color=look.colour, linewidth=0.6)
    starts = losses.groupby("task")["at"].min()
    for start in starts.iloc[1:]:
        axis.axvline(start - 0.5, color="#9aa3ab", linewidth=0.5)
    step = math.ceil(len(starts) / 6)
    axis.set_xticks(starts[::step], [str(at + 1) for at in starts[::step]])
