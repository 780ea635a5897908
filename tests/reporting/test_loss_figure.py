"""The figure of the training losses."""

import pandas as pd
import pytest
from study import make_study

from cdl.layout import RunFiles, record_of
from cdl.reporting.losses import losses_over_epochs, read_losses
from cdl.runtime.artifacts import write_json
from cdl.runtime.errors import CdlError

EPOCHS = 2


def write_losses(run, values):
    """Write the losses of a run's tasks: `values` by part, with the task and the epoch added."""
    for t in range(4):
        task = RunFiles(run).task(t)
        rows = [
            (t, epoch, 0.01 if part != "validation" else 0.0, part, value and value + t + epoch)
            for part, value in values.items()
            for epoch in range(EPOCHS)
        ]
        columns = ["task", "epoch", "learning_rate", "part", "value"]
        pd.DataFrame(rows, columns=columns).to_csv(task.losses, index=False)
        write_json(record_of(task.learner), {}, files=[task.losses])


@pytest.fixture
def runs(tmp_path):
    """Runs of one method; the undistilled student solves a ridge, without gradient steps."""
    results, *_ = make_study(tmp_path, methods=["l2p"])
    for row in results.to_dict("records"):
        values = {"ce": 1.0, "prompt": 0.0, "total": 1.0}
        if row["teacher"]:
            values |= {"soft": 3.0 + row["seed"], "prompt": -0.5}
        elif row["role"] == "student":
            values = {"validation": 1.0, "total": 1.0}
        write_losses(row["run"], values)
    return results


def test_epochs_of_all_tasks_follow_each_other_and_idle_parts_are_left_out(runs):
    found = read_losses(runs, RunFiles)
    teacher = found[found["run"].str.contains("/big/seed0")]
    assert {*teacher["part"]} == {"ce"}  # neither the total nor a part that is always 0
    assert teacher["at"].tolist() == list(range(4 * EPOCHS))
    assert teacher["value"].tolist() == [1 + t + e for t in range(4) for e in range(EPOCHS)]
    assert not found["run"].str.contains("/none/").any()


def test_every_learner_has_a_panel_with_the_mean_over_seeds(runs):
    figure = losses_over_epochs(runs, read_losses(runs, RunFiles))
    axes = figure.axes
    assert [axis.get_title() for axis in axes if axis.axison] == ["teacher", "kd", "dkd"]
    lines = [line for line in axes[1].get_lines() if line.get_label() == "soft"]
    assert len(lines) == 4  # a line for each task
    assert list(lines[1].get_xdata()) == [2, 3]
    assert list(lines[1].get_ydata()) == pytest.approx([3.5 + 1, 3.5 + 2])
    assert axes[0].get_ylim()[0] < 0 < axes[0].get_ylim()[1]  # linear, since a part is negative
    assert {text.get_text() for text in figure.legends[0].texts} == {"ce", "soft", "prompt"}


def test_without_gradient_steps_the_figure_says_so(runs):
    ridge = runs[runs["distiller"].eq("none") & runs["role"].eq("student")]
    figure = losses_over_epochs(ridge, read_losses(ridge, RunFiles))
    assert "no learner takes gradient steps" in figure.texts[0].get_text()


def test_edited_losses_are_reported(runs):
    file = RunFiles(runs["run"].iloc[0]).task(0).losses
    with open(file, "a") as text:
        text.write("0,9,0.1,ce,0\n")
    with pytest.raises(CdlError, match="losses.csv"):
        read_losses(runs, RunFiles)
