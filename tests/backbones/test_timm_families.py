"""Every family of timm that can be prompted, at a small size, against timm's own forward."""

import copy
import re

import pytest
import timm
import torch
from timm.layers import apply_rot_embed_cat
from torch import nn

from cdl.backbones import families
from cdl.backbones.architectures import architectures, find, find_weights
from cdl.backbones.images import FrozenViT
from cdl.backbones.vit import Injection, _append_identity_rotation
from cdl.runtime.errors import CdlError
from tools import tabulate_backbones as tabulate

# one of every kind, as distinguished by parts, class, pooling and class token in the table
REPRESENTATIVES = """
    aimv2_1b_patch14_224
    beit3_base_patch16_224
    eva_large_patch14_196
    flexivit_base
    test_vit
    test_vit2
    test_vit3
    test_vit4
    vit_base_patch14_dinov2
    vit_base_patch14_reg1_tipsv2
    vit_base_patch16_18x2_224
    vit_base_patch16_clip_224
    vit_base_patch16_clip_quickgelu_224
    vit_base_patch16_gap_224
    vit_base_patch16_radio_v3
    vit_base_patch16_reg4_gap_256
    vit_base_patch16_rpn_224
    vit_base_patch16_siglip_224
    vit_base_patch16_xp_224
    vit_base_patch32_siglip_256
    vit_base_patch32_siglip_gap_256
    vit_medium_patch16_gap_240
    vit_wee_patch16_reg1_gap_256
    vit_dwee_patch16_reg1_gap_256
    vit_dpwee_patch16_reg1_gap_256
    vit_giant_patch14_dinov2
    vit_giant_patch14_reg1_tipsv2
    vit_huge_patch16_radio_v3
    vit_intern300m_patch14_448
    vit_pwee_patch16_reg1_gap_256
    vit_so150m_patch16_reg4_gap_256
    vit_so150m_patch16_reg4_map_256
    eva02_base_patch14_224
    eva02_base_patch16_clip_224
    eva02_enormous_patch14_clip_224
    eva02_tiny_patch14_224
    eva_giant_patch14_224
    eva_giant_patch14_clip_224
    vit_7b_patch16_dinov3
    vit_base_patch16_dinov3
    vit_base_patch16_lingbot
    vit_base_patch16_rope_224
    vit_base_patch16_rope_ape_224
    vit_base_patch16_rope_mixed_224
    vit_base_patch16_rope_mixed_ape_224
    vit_base_patch16_rope_reg1_gap_256
    vit_giant_patch16_lingbot
    vit_pe_core_base_patch16_224
    vit_pe_core_gigantic_patch14_448
    vit_pe_lang_gigantic_patch14_448
    vit_pe_lang_large_patch14_448
    vit_pe_spatial_base_patch16_512
    deit3_base_patch16_224
    deit_base_distilled_patch16_224
    vit_base_mci_224
    vit_base_r26_s32_224
    vit_base_resnet26d_224
    vit_tiny_r_s16_p8_224
    vitamin_small_224
    vitamin_xlarge_256
    vit_base_patch16_sapiens2
    vit_5b_patch16_sapiens2
""".split()
AS_WIDE_AS_THEIR_STEM = {"vit_base_mci_224", "vitamin_small_224", "vitamin_xlarge_256"}
WIDTH = 96
REFUSED = {
    "swin_tiny_patch4_window7_224": "SwinTransformer is not a sequence of blocks",
    "convnext_tiny": "ConvNeXt is not a sequence of blocks",
    "samvit_base_patch16": "VisionTransformerSAM is not a sequence of blocks",
    "vit_relpos_base_patch16_224": "VisionTransformerRelPos is not a sequence of blocks",
    "beit_base_patch16_224": "Beit is not a sequence of blocks",
    "naflexvit_base_patch16_gap": "NaFlexVit is not a sequence of blocks",
    "cait_xxs24_224": "Cait is not a sequence of blocks",
    "resnet50": "ResNet is not a sequence of blocks",
}


def kind(architecture):
    shape = architecture.shape
    return architecture.kind, architecture.parts, architecture.pool, shape.class_token


def small(name):
    """Build an architecture with two narrow blocks, few patches and no weight at its default."""
    patch = find(name).shape.patch
    arguments = {"depth": 2, "img_size": 3 * patch}
    if name not in AS_WIDE_AS_THEIR_STEM:
        arguments |= {"embed_dim": WIDTH, "num_heads": 4}
    if "sapiens2" in name:
        arguments["num_kv_heads"] = (4, 2)
    model = families.create(name, arguments | {"dynamic_img_size": False})
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    return model


def pairs(batch, length, width=WIDTH, grad=False):
    generator = torch.Generator().manual_seed(1)
    draw = lambda: torch.randn(batch, length, width, generator=generator).requires_grad_(grad)  # noqa: E731
    return {layer: (draw(), draw()) for layer in range(2)}


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_a_family_equals_timms_forward_and_accepts_prefixes(name):
    model = small(name)
    own = copy.deepcopy(model)
    backbone = FrozenViT(model, [0.0] * 3, [1.0] * 3, name)
    images, width = torch.rand(2, 3, backbone.size, backbone.size), backbone.width
    with torch.no_grad():
        features = own.forward_features(images)
        pooled = own.forward_head(features, pre_logits=True)
        plain = backbone.encode(images, keep_blocks=1)
        empty = backbone.encode(images, Injection(pairs(2, 0, width)), keep_blocks=1)
    torch.testing.assert_close(plain.tokens, features, rtol=0, atol=1e-5)
    torch.testing.assert_close(plain.features[:, 0], pooled, rtol=0, atol=1e-5)
    for ours, theirs in ((empty.tokens, plain.tokens), (empty.blocks[0], plain.blocks[0])):
        assert torch.equal(ours, theirs)
    assert plain.blocks[0].shape[1] == backbone.shape.class_token + 9  # registers are left out

    prefixes = pairs(2, 3, width, grad=True)
    token = torch.randn(1, width).requires_grad_()
    prompted = backbone.encode(images, Injection(prefixes, token=token))
    assert prompted.tokens.shape[1] == plain.tokens.shape[1] + 1
    assert not torch.isclose(prompted.features[:, 0], plain.features[:, 0]).all(-1).any()
    prompted.features.sum().backward()
    for leaf in (token, *(half for pair in prefixes.values() for half in pair)):
        assert leaf.grad.isfinite().all()
        assert leaf.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_representatives_cover_all_kinds_of_the_table():
    accepted = [a for a in architectures().values() if a.shape and a.shape.depth]
    chosen = {kind(architectures()[name]) for name in REPRESENTATIVES}
    assert len(REPRESENTATIVES) >= 40
    assert {kind(a) for a in accepted} == chosen


@pytest.mark.parametrize("name", [*REPRESENTATIVES[::4], *REFUSED])
def test_the_table_equals_what_timm_builds(name):
    if not timm.is_model(name):
        pytest.skip(f"timm {timm.__version__} has no {name}")
    (row,) = tabulate.rows([name])
    table = next(r for r in tabulate.read() if r["architecture"] == name)
    del row["tags"], table["tags"]  # each version of timm publishes more
    assert row == table


def test_the_page_of_backbones_is_made_from_the_table():
    assert tabulate.DOCUMENT.read_text() == tabulate.document(), (
        "python -m tools.tabulate_backbones"
    )


@pytest.mark.parametrize(("name", "message"), REFUSED.items())
def test_why_an_architecture_has_no_prefixes_is_known_and_another_suggested(name, message):
    whole = f"'{name}' cannot be prompted: {message}.*use for example vit_"
    assert re.match(whole, find(name).shape.unprompted)


def test_tags_are_known_without_a_network():
    assert find_weights("vit_base_patch14_reg4_dinov2.lvd142m").shape.patch == 14
    for tag, message in {
        "vit_base_patch16_224": "is not a full tag: .* for example vit_base_patch16_224",
        "vit_base_patch16_224.mea": "is not on the Hub; tags of vit_base_patch16_224: .*mae",
        "vit_bse_patch16_224.mae": "not an architecture of timm; did you mean vit_base_patch16_224",
    }.items():
        with pytest.raises(CdlError, match=message):
            find_weights(tag)


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("shape", [(9, 16), (4, 9, 16)])
def test_an_appended_token_is_not_rotated(half, shape):
    positions, x = _append_identity_rotation(torch.randn(shape)), torch.randn(2, 4, 10, 8)
    turned = apply_rot_embed_cat(x, positions, half=half)
    assert torch.equal(turned[:, :, -1], x[:, :, -1])
    assert not torch.isclose(turned[:, :, :-1], x[:, :, :-1]).all()


def test_additions_need_a_class_token():
    backbone = FrozenViT(small("vit_base_patch16_siglip_224"), [0.0] * 3, [1.0] * 3, "siglip")
    images = torch.rand(1, 3, backbone.size, backbone.size)
    with pytest.raises(CdlError, match="additions need a class token; this backbone has none"):
        backbone.encode(images, Injection(additions={0: (torch.ones(WIDTH), torch.ones(WIDTH))}))


def test_prefix_keys_are_not_normed():
    """With q/k norm, scaling the keys of a prefix changes the result; a norm would undo it."""
    model = small("vit_5b_patch16_sapiens2")
    backbone = FrozenViT(model, [0.0] * 3, [1.0] * 3, "x")
    assert not isinstance(model.blocks[0].attn.k_norm, nn.Identity)
    images, (key, value) = torch.rand(1, 3, backbone.size, backbone.size), pairs(1, 2)[0]
    short, long = (backbone.encode(images, Injection({0: (k, value)})) for k in (key, 9 * key))
    assert not torch.isclose(short.features, long.features).all()


def test_a_view_of_another_size_is_resized_before_encoding():
    backbone = FrozenViT(small("vit_base_patch16_clip_224"), [0.5] * 3, [0.5] * 3, "x", "bicubic")
    images = torch.zeros(2, 3, 32, 32)
    images[:, :, :, 16:] = 1
    resized = backbone._resized(images)
    assert resized.shape == (2, 3, 48, 48)
    assert resized.amin() == 0
    assert resized.amax() == 1
    assert torch.equal(backbone.query(images), backbone.query(resized))
