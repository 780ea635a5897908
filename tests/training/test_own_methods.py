"""A method or distiller of a user that asks or returns something wrong gets one sentence."""

import re

import pytest
import torch
import toys

from cdl.backbones.shape import BackboneShape
from cdl.distillers.base import Distiller, DistillerContext, Output, TeacherOutput
from cdl.methods.base import PromptContext, PromptMethod, Prompts
from cdl.methods.heads import PrototypeHead
from cdl.models.returned import built
from cdl.runtime.errors import CdlError
from cdl.runtime.facts import Facts
from cdl.training import solving

KEYS = torch.zeros(1, 2, 12)
SHAPE = BackboneShape(12, 2)


@pytest.mark.parametrize(
    ("given", "known"),
    [
        (PromptContext(12, 2, 12, None, torch.Generator()), "width, depth, query_width, n_tasks"),
        (
            DistillerContext(SHAPE, None, None, None, torch.nn.Identity, torch.Generator()),
            "student, teacher, teacher_prompts, n_tasks, head, generator",
        ),
        (Output(KEYS, KEYS, (), {}), "logits, tokens, blocks, prompt_losses, margin"),
        (TeacherOutput(KEYS, None), "logits, query, blocks, past"),
    ],
)
def test_a_wrong_attribute_of_what_is_given_names_those_that_there_are(given, known):
    name = type(given).__name__
    with pytest.raises(CdlError, match=f"{name} has no 'widht'; it has {known}") as refused:
        _ = given.widht
    assert re.search(r"\(training/test_own_methods\.py:\d+\)$", str(refused.value))
    assert not hasattr(given, "widht")


@pytest.fixture
def learner(toy_backbone, monkeypatch):
    """A learner whose method and distiller return what is given."""

    def make(prompts=None, injection=None, losses=None):
        found = toys.learner(toy_backbone(12, 2), "head_only")
        for module, name, value in (
            (found.prompts, "forward", prompts),
            (found.distiller, "inject", injection),
            (found.distiller, "forward", losses),
        ):
            if value is not None:
                monkeypatch.setattr(module, name, lambda *_, value=value: value[0])
        return found

    return make


@pytest.mark.parametrize(
    ("returned", "sentence"),
    [
        (None, r"forward returned None; expected cdl.methods.base.Prompts\(prefixes, addit"),
        (KEYS, r"forward returned a tensor of shape \[1, 2, 12\]; expected cdl.methods"),
        (Prompts([KEYS]), r"prefixes of a list of 1; expected prefixes \{block: \(keys, values"),
        (Prompts({0: KEYS}), r"for block 0 a tensor of shape \[1, 2, 12\]; expected prefixes"),
        (Prompts({0: (KEYS, KEYS[0])}), r"for block 0 a tensor of shape \[2, 12\]; expected"),
        (Prompts({1: (KEYS, KEYS[..., 1:])}), r"block 1 a tensor of shape \[1, 2, 11\]; expected"),
        (Prompts({2: (KEYS, KEYS)}), r"for block 2 .*\(blocks 0 to 1, width 12\)"),
        (Prompts({"0": (KEYS, KEYS)}), "for block '0' a tensor"),
    ],
)
def test_wrong_prompts_are_named(learner, returned, sentence):
    images, _ = toys.batch(2)
    with pytest.raises(CdlError, match=sentence) as caught:
        learner(prompts=[returned])(images, None, 0)
    assert str(caught.value).startswith("HeadOnly.forward returned ")


@pytest.mark.parametrize(
    ("rows", "what"), [(None, "None"), (KEYS, "a tensor of"), ({"mean": None}, "a dict of 1")]
)
def test_what_a_head_learns_is_named(rows, what):
    class Own(PrototypeHead):
        from_sums = False

        def learn(self, features, targets):
            return rows

    head = Own(12, 2, torch.Generator(), None, "mean")
    with pytest.raises(CdlError, match=f"^Own.learn returned {what}.*; expected a dict of tensors"):
        solving._fit(None, head, KEYS[0], torch.eye(2), {})


def test_a_wrong_injection_is_named(learner):
    with pytest.raises(
        CdlError, match=r"NoDistillation.inject returned a dict of 0; expected cdl\."
    ):
        learner(injection=[{}])(toys.batch(2)[0], None, 0)


@pytest.mark.parametrize(
    ("returned", "sentence"),
    [
        (None, "returned None; expected a dict of losses by name"),
        (KEYS.sum(), r"returned a tensor of shape \[\]; expected a dict of losses"),
        ({}, "returned a dict of 0; expected"),
        ({"ce": KEYS}, r"returned as 'ce' a tensor of shape \[1, 2, 12\]; expected"),
        ({"ce": 0.5}, "returned as 'ce' a float; expected"),
        ({5: KEYS.sum()}, "returned as 5 a tensor"),
    ],
)
def test_wrong_losses_are_named(learner, returned, sentence):
    images, labels = toys.batch(2)
    made = learner(losses=[returned])
    with pytest.raises(CdlError, match=sentence):
        made.losses(made(images, None, 0), None, labels, slice(0, 4))


class Short(PromptMethod):
    def __init__(self, context):
        super().__init__()


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (Short, "mine.shift:Shift: got an unexpected keyword argument 'length'; its facts give it"),
        (Distiller, "mine.shift:Shift: is not a subclass of cdl.methods.base.PromptMethod"),
        (print, "mine.shift:Shift: is not a subclass of cdl.methods.base.PromptMethod"),
    ],
)
def test_a_class_that_does_not_fit_its_facts_is_named(kind, sentence):
    with pytest.raises(CdlError, match=sentence):
        built(kind, PromptMethod, Facts("mine.shift:Shift"), None, {"length": 4})
