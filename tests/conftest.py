"""Toy models for all tests."""

import sys
from pathlib import Path

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from cdl.backbones import Backbone

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "conformance"), str(HERE.parent / "workflow")]


torch.set_num_threads(1)  # as jobs run; pytest-xdist's workers would fight over the cores


@pytest.fixture
def toy_backbone():
    """A maker of small random backbones for 8x8 images with 4 patches."""

    def make(width=12, depth=6, heads=3, seed=0):
        torch.manual_seed(seed)
        vit = VisionTransformer(
            img_size=8, patch_size=4, embed_dim=width, depth=depth, num_heads=heads, num_classes=0
        )
        return Backbone(vit, [0.5] * 3, [0.5] * 3, f"toy{width}x{depth}")

    return make
