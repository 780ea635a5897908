"""The control of prompt mapping: prompts of the teacher that were never trained."""

import pytest
import torch
from lab import make_grid
from toys import learner

from cdl.runtime import artifacts
from cdl.study.specifications import specification

INITIAL = {"block": "cdl_prompt", "variant": "initial", "teacher_prompts": "initial"}
GRID = {"grid": {"methods": ["coda_prompt"], "distillers": ["none", "cdl_prompt", INITIAL]}}
PROMPTS = "distiller.teacher_prompts."


def test_initial_prompts_are_not_the_teachers_and_are_never_trained(lab):
    made = lab(GRID)
    states, teachers = {}, []
    for run in made.grid.runs:
        made.learn_all(run)
        paths = [made.checkpoint(run, t) for t in range(run.n_tasks)]
        if run.teacher:
            states[run.distiller.variant] = [artifacts.load(path)[0] for path in paths]
        elif run.role == "teacher":
            teachers = [artifacts.load(path)[0] for path in paths]
    (mapped, _), (first, last) = states[""], states["initial"]
    names = [name for name in first if name.startswith(PROMPTS)]
    assert names == [name for name in mapped if name.startswith(PROMPTS)] and names
    for name in names:
        assert torch.equal(mapped[name], teachers[0]["prompts." + name.removeprefix(PROMPTS)])
        assert not torch.equal(first[name], mapped[name])
        earlier = last[name][:, : first[name].shape[1]]
        assert torch.equal(earlier, first[name])  # the second task appends, and trains nothing
        assert last[name].shape[1] == 2 * first[name].shape[1]


@pytest.mark.parametrize("method", ["coda_prompt", "l2p", "dual_prompt"])
def test_all_that_is_trained_starts_as_without_the_option(toy_backbone, method):
    made = []
    for options in ({}, {"teacher_prompts": "initial"}):
        teacher = toy_backbone(24, 7)
        student = learner(toy_backbone(), method, "cdl_prompt", teacher, options=options)
        made.append({n: p for n, p in student.named_parameters() if p.requires_grad})
    usual, control = made
    assert usual.keys() == control.keys() and not any(PROMPTS in name for name in control)
    assert all(torch.equal(usual[name], control[name]) for name in usual)


def test_specifications_name_the_prompts_that_are_mapped():
    made = make_grid(GRID)
    options = [specification(made, run).distiller.options for run in made.runs if run.teacher]
    assert [option["teacher_prompts"] for option in options] == ["learnt", "initial"]
