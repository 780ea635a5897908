"""The figure of the prompts that are chosen by task."""

import numpy as np
import pandas as pd
import pytest
from study import make_study

from cdl.layout import RunFiles
from cdl.reporting.prompts import difference_of_tasks, prompt_use, read_prompt_use
from cdl.runtime.artifacts import write_json

RNG = np.random.default_rng(0)


def use_of(weights, per_task=None, layers=(0, 2)):
    """A table of `cdl.evaluation.prompts` with weights `[layers, T, M]`."""
    rows = [
        (layer, t, m, "" if per_task is None else m // per_task, weights[i, t, m])
        for i, layer in enumerate(layers)
        for t in range(weights.shape[1])
        for m in range(weights.shape[2])
    ]
    return pd.DataFrame(rows, columns=["layer", "task", "prompt", "added_by", "weight"])


def write_use(run, table):
    files = RunFiles(run)
    table.to_csv(files.prompts, index=False)
    write_json(files.prompting.record, {}, files=[files.prompts])
    return files.prompts


def test_the_difference_of_tasks_is_0_for_equal_and_100_for_disjoint_choices():
    one = np.array([0.2, -0.3, 0.5])
    assert difference_of_tasks(use_of(np.tile(one, (2, 4, 1)))) == pytest.approx(0)
    assert difference_of_tasks(use_of(np.tile(np.eye(4), (2, 1, 1)))) == pytest.approx(100)
    half = np.array([[[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]]] * 2)
    assert difference_of_tasks(use_of(half)) == pytest.approx(50)
    assert np.isnan(difference_of_tasks(use_of(np.ones((2, 1, 3)))))


def test_prompts_are_grouped_by_the_task_that_added_them_or_by_block(tmp_path):
    runs, *_ = make_study(tmp_path, methods=["l2p"], seeds=[0])
    added, shared = RNG.normal(size=(2, 4, 8)), RNG.random((2, 4, 3))
    tables = [
        write_use(f"{tmp_path}/l2p/none/seed0", use_of(added, per_task=2)),
        write_use(f"{tmp_path}/l2p/kd/seed0", use_of(shared)),
    ]
    write_use(f"{tmp_path}/l2p/dkd/seed0", use_of(shared))  # of an earlier configuration
    figure = prompt_use(runs, read_prompt_use(runs, tables, RunFiles))
    none, kd = (axis for axis in figure.axes if axis.images)
    assert none.get_title().startswith("none, tasks differ by ")
    np.testing.assert_allclose(none.images[0].get_array(), added.mean(axis=0))
    top = np.abs(added.mean(axis=0)).max()
    assert none.images[0].get_clim() == pytest.approx((-top, top))
    assert [text.get_text() for text in none.get_xticklabels()] == ["1", "2", "3", "4"]
    assert "task that added" in none.get_xlabel()
    np.testing.assert_allclose(kd.images[0].get_array(), np.hstack(list(shared)))
    assert kd.images[0].get_clim()[0] == 0
    assert [text.get_text() for text in kd.get_xticklabels()] == ["0", "2"]
    assert "block" in kd.get_xlabel()
