"""Licence and input size of published weights are those that timm states."""

import timm

from cdl.backbones.architectures import architectures
from cdl.backbones.weights_facts import is_research_only, size_of

RESEARCH = {"cc-by-nc-4.0", "fair-noncommercial-research-license", "apple-amlr"}


def test_research_only_weights_are_those_with_such_a_licence_in_timm():
    found = {}
    for architecture in architectures().values():
        for tag in architecture.tags if architecture.shape else ():
            name = f"{architecture.name}.{tag}"
            found[name] = getattr(timm.get_pretrained_cfg(name), "license", None)
    assert len(found) > 400
    wrong = [n for n, own in found.items() if is_research_only("timm", n) != (own in RESEARCH)]
    assert not wrong
    assert is_research_only("embedded", "vit_nano_patch4_32")
    assert size_of("embedded", "vit_nano_patch4_32") == 32
    assert size_of("timm", "vit_small_patch14_dinov2.lvd142m") == 518
    assert size_of("hf", "sentence-transformers/all-MiniLM-L6-v2") is None
