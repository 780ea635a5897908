"""Parameters of KD prompts that all tasks share: how they start, and when they stop learning."""

import pytest
import torch
from lab import make_grid
from toys import learner

from cdl.distillers import DISTILLERS
from cdl.runtime import artifacts
from cdl.study.specifications import specification

SHARED = ("distiller.kd_token", "distiller.kd_prompts")
FROZEN = {"block": "kd_prompt", "variant": "frozen", "freeze_after": 1}


@pytest.mark.parametrize("start", ["uniform", "normal", "zeros"])
def test_prefixes_start_as_named_and_the_token_does_not_depend_on_them(toy_backbone, start):
    options = {"prefix_start": start, "kd_length": 64}
    made, plain = (
        learner(toy_backbone(), "l2p", "kd_prompt", toy_backbone(24, 7), options=o).distiller
        for o in (options, {"kd_length": 64})
    )
    assert torch.equal(made.kd_token, plain.kd_token)
    assert torch.equal(made.kd_prompts, plain.kd_prompts) == (start == "uniform")
    assert made.kd_prompts.shape == (5, 64, 12)
    prefixes = made.kd_prompts.detach()
    mean, deviation = float(prefixes.mean()), float(prefixes.std())
    expected = {"uniform": (0.5, 12**-0.5), "normal": (0.0, 0.02), "zeros": (0.0, 0.0)}[start]
    assert (mean, deviation) == pytest.approx(expected, abs=0.01 if start == "uniform" else 0.001)


@pytest.mark.parametrize("name", ["kd_token", "kd_prompt"])
def test_shared_parameters_learn_in_the_first_tasks_alone(toy_backbone, name):
    made = learner(toy_backbone(), "l2p", name, toy_backbone(24, 7), options={"freeze_after": 2})
    frozen, heads = [], []
    for task in range(4):
        made.start_task(task, 0, 0)
        names = {n for n, p in made.named_parameters() if p.requires_grad}
        frozen.append(not names & {*SHARED})
        heads.append(any(n.startswith("distiller.kd_head") for n in names))
    assert frozen == [False, False, True, True] and all(heads)


def test_frozen_parameters_keep_their_values(lab):
    made = lab({"grid": {"distillers": ["none", "kd_prompt", FROZEN]}})
    states = {}
    for run in (r for r in made.grid.runs if r.teacher):
        made.learn_all(run)
        variant = run.distiller.variant
        states[variant] = [artifacts.load(made.checkpoint(run, t))[0] for t in range(run.n_tasks)]
    (first, last), (free, moved) = states["frozen"], states[""]
    assert all(torch.equal(first[k], free[k]) for k in free)  # the first task is the same
    for name in SHARED:
        assert torch.equal(first[name], last[name])
        assert not torch.equal(free[name], moved[name])


def test_specifications_name_the_options_also_at_their_defaults():
    made = make_grid({"grid": {"distillers": ["none", "kd_prompt", FROZEN]}})
    options = [specification(made, run).distiller.options for run in made.runs if run.teacher]
    defaults = DISTILLERS["kd_prompt"].options
    plain, frozen = ({n: o[n] for n in ("freeze_after", "prefix_start")} for o in options)
    assert plain == {name: defaults[name]["default"] for name in plain}
    assert {n for n in plain if plain[n] != frozen[n]} == {"freeze_after"}
