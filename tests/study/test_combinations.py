"""Every combination of distiller and method is planned, or rejected with its name."""

import pytest
from lab import make_grid

from cdl.distillers import DISTILLERS
from cdl.methods import PROMPTS
from cdl.study.configuration import ConfigError, schema
from cdl.study.specifications import specification

OPTIONS = {
    "distillers": {"cdl_prompt": {"pool": 8}, "se2d": {"self_distillation": True}},
    "methods": {"ranpac": {"logit_scale": 10}},
}


def grid(method, *distillers, tasks=None):
    changes = {"grid": {"methods": [method], "distillers": ["none", *distillers]}} | OPTIONS
    return make_grid(changes | ({"datasets": {"digits": {"tasks": tasks}}} if tasks else {}))


@pytest.mark.parametrize("distiller", DISTILLERS)
@pytest.mark.parametrize("method", PROMPTS)
def test_a_combination_is_planned_or_refused_by_name(method, distiller):
    facts = PROMPTS[method]
    mappable = facts.gives_prefixes or distiller != "cdl_prompt"
    solved = facts.trains or distiller in ("none", "kd")
    if mappable and solved:
        runs = grid(method, *{distiller} - {"none"}).runs
        assert distiller in {run.distiller.name for run in runs}
    else:
        with pytest.raises(
            ConfigError, match=rf"distillers\.{distiller}: invalid value 'methods\.{method}'"
        ):
            grid(method, distiller)


@pytest.mark.parametrize("method", PROMPTS)
def test_every_method_that_trains_can_be_aligned(method):
    fields = schema()["properties"]["methods"]["properties"][method]["properties"]
    assert ("alignment" in fields) == PROMPTS[method].trains
    if PROMPTS[method].trains:
        block = {"block": method, "variant": "hide", "alignment": {"preset": "hide", "epochs": 3}}
        made = grid(block)
        assert {specification(made, run).alignment.epochs for run in made.runs} == {3}


def test_standardised_logits_need_three_classes():
    z = {"block": "kd", "variant": "z", "standardize": True}
    with pytest.raises(
        ConfigError, match=r"distillers\.kd\+z\.standardize: invalid value 'tasks \[8, 2\]'"
    ):
        grid("l2p", z, tasks=[8, 2])
    assert grid("l2p", z, tasks=[7, 3]).runs


def test_a_specification_has_all_options_also_at_their_defaults():
    plain, z = "kd", {"block": "kd", "variant": "z", "standardize": True, "soft_weight": 9}
    made = grid("l2p", plain, z)
    by_label = {run.distiller.label: specification(made, run) for run in made.runs}
    assert by_label["kd"].distiller.options.keys() == DISTILLERS["kd"].options.keys()
    assert by_label["kd"].distiller.options["soft_weight"] is None
    assert by_label["kd+z"].distiller.options["soft_weight"] == 9.0
    assert not any(spec.alignment for spec in by_label.values())


@pytest.mark.parametrize("field", ["e_layers", "g_layers"])
def test_one_prompt_has_one_prompt_per_block(field):
    block = {"block": "one_prompt", "variant": "twice", field: [1, 2]}
    with pytest.raises(ConfigError, match=r"one_prompt\+twice\.e_layers"):
        grid(block)
