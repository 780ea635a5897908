"""Models of timm of which only features are read."""

import pytest
import torch
from lab import make_grid
from safetensors.torch import save_file
from torch import nn

from cdl.backbones import families
from cdl.backbones.check import check
from cdl.backbones.extractor import FeatureExtractor
from cdl.backbones.fetch import fetch
from cdl.backbones.images import ImageBackbone
from cdl.backbones.vit import Injection
from cdl.runtime.errors import CdlError
from cdl.study.configuration import ConfigError
from cdl.study.validation import methods_of

HEADS = ["simple_cil", "fecam", "ranpac", "head_only"]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    """A small ResNet with unequal statistics, and a folder with its file and its artifact."""
    folder = tmp_path_factory.mktemp("resnet")
    torch.manual_seed(0)
    model = families.create("resnet10t")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    state = {**model.state_dict(), "fc.weight": torch.ones(3, 512), "fc.bias": torch.ones(3)}
    save_file(state, folder / "mine.safetensors")
    fetch(folder / "b.safetensors", "file", str(folder / "mine.safetensors"), "resnet10t")
    return model, folder


@pytest.mark.parametrize("size", [64, 176])
def test_features_are_those_of_timm_also_after_train(artifact, size):
    model, folder = artifact
    backbone = ImageBackbone.load(folder / "b.safetensors", size, "unit")
    assert isinstance(backbone, FeatureExtractor)
    images = torch.rand(2, 3, size, size)
    with torch.no_grad():
        expected = model(images)
    before = {name: t.clone() for name, t in backbone.state_dict().items()}
    nn.Sequential(backbone).train()
    assert torch.equal(backbone.query(images), expected)
    assert all(torch.equal(t, before[name]) for name, t in backbone.state_dict().items())
    assert backbone.outside > 1e7


def test_nothing_is_injected(artifact):
    backbone = ImageBackbone.load(artifact[1] / "b.safetensors", 64, "backbone")
    images, pair = torch.rand(1, 3, 64, 64), (torch.zeros(1, 2, 512),) * 2
    assert backbone.encode(images, Injection()).features.shape == (1, 1, 512)
    for given in (Injection(token=torch.zeros(1, 512)), Injection(prefixes={0: pair})):
        with pytest.raises(CdlError, match="nothing can enter"):
            backbone.encode(images, given)
    with pytest.raises(CdlError, match="nothing can enter"):
        backbone.encode(images, keep_blocks=1)


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "resnet10t"])
def test_check_names_the_methods(name):
    found = check(name)
    assert not found.problem and found.depth == 0 and found.width > 0
    assert methods_of(found.shape) == HEADS


@pytest.fixture
def config(artifact):
    """A maker of changes to the tiny configuration, with a ResNet as student."""
    path = str(artifact[1] / "mine.safetensors")

    def make(method, distiller, **block):
        backbone = {"embedded": None, "file": path, "model": "resnet10t", **block}
        grid = {"methods": [method], "distillers": ["none", distiller], "exclude": []}
        return {"backbones": {"vit_nano": backbone}, "grid": grid}

    return make


def test_a_grid_of_heads_has_the_models_own_input_size(config):
    grid = make_grid(config("head_only", "kd"))
    assert grid.sizes(["vit_nano", "vit_micro"]) == {"vit_nano": 176}
    assert make_grid(config("head_only", "kd", size=64)).sizes(["vit_nano"]) == {"vit_nano": 64}


@pytest.mark.parametrize(
    ("method", "distiller", "block", "message"),
    [
        (
            "l2p",
            "kd",
            {},
            "methods.l2p: 'resnet10t' cannot .*: simple_cil, fecam, ranpac, head_only",
        ),
        ("head_only", "fitnets", {}, "distillers.fitnets: 'resnet10t' cannot be .* of logits: "),
        ("head_only", "kd_token", {}, "distillers.kd_token: 'resnet10t' cannot be prompted"),
        ("head_only", "kd", {"size": 100}, "expected 176, .* or a multiple of 32"),
    ],
)
def test_what_needs_blocks_is_refused_before_any_job(config, method, distiller, block, message):
    with pytest.raises(ConfigError, match=message):
        make_grid(config(method, distiller, **block))
