"""Which prompts the test images of each task use."""

import pandas as pd
import pytest
import torch
from toys import learner

from cdl.evaluation import prompts as use_of_prompts
from cdl.evaluation.prompts import mean_choice, write_prompt_use
from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError


def use(here, run, **inputs):
    """The table and the record of a run's prompts."""
    given = here.arguments(here.planned.prompting(run), run.dataset)
    folder = here.folder / run.folder
    table, record = folder / "prompts.csv", folder / "prompts.json"
    how = {"task": run.n_tasks - 1, "execution": here.execution}
    how["images_per_class"] = here.grid.test_images_per_class(run.dataset)
    write_prompt_use(here.spec(run), str(table), str(record), **given | inputs, **how)
    return pd.read_csv(table), artifacts.read_json(record)


def test_the_mean_over_images_is_that_of_their_task(toy_backbone, monkeypatch):
    monkeypatch.setattr(use_of_prompts, "BATCH", 4)
    method = learner(toy_backbone(), "coda_prompt").eval().prompts
    method.start_task(1, torch.Generator().manual_seed(1))
    queries = torch.randn(11, 12, generator=torch.Generator().manual_seed(0))
    owner = torch.tensor([0] * 6 + [1] * 5)
    with torch.no_grad():
        found = mean_choice(method, queries, owner, 1)
        whole = method.choice(queries, 1).weights
    expected = torch.stack([whole[:, owner == t].mean(1) for t in (0, 1)], dim=1)
    torch.testing.assert_close(found.weights.float(), expected)
    assert found.per_task == 3


def test_a_table_has_every_block_task_and_prompt_of_the_last_checkpoint(lab):
    here = lab()
    student = here.run(role="student", teacher=None)
    here.learn_all(student)
    table, record = use(here, student)
    pool = artifacts.load(here.checkpoint(student, 1))[0]["prompts.pool.key"]
    layers, prompts, _ = pool.shape
    assert len(table) == layers * student.n_tasks * prompts
    assert (table["added_by"] == table["prompt"] // (prompts // student.n_tasks)).all()
    assert table["weight"].abs().between(1e-9, 1).any() and table["weight"].abs().max() <= 1
    metadata = artifacts.read_json(here.checkpoint(student, 1).replace(".safetensors", ".json"))
    assert record["checkpoint"] == metadata["sha256"]
    again, _ = use(here, student)
    pd.testing.assert_frame_equal(table, again)
    with pytest.raises(CdlError):  # the checkpoint of an earlier task
        use(here, student, checkpoints=[here.checkpoint(student, 0)])


def test_queries_are_computed_where_none_are_cached(lab):
    here = lab()
    student = here.run(role="student", teacher=None)
    here.learn_all(student)
    table, _ = use(here, student)
    computed, _ = use(here, student, queries={})
    pd.testing.assert_frame_equal(table, computed, atol=1e-4)
