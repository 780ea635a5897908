"""The forward pass with prompts against timm's own, and backbones from every source."""

import copy

import pytest
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch.nn import functional as F

from cdl.backbones.attention import AttentionInjector, by_products, widened
from cdl.backbones.fetch import fetch
from cdl.backbones.images import FrozenViT
from cdl.backbones.vit import Injection, encode
from cdl.runtime import artifacts
from cdl.runtime.compute import Compute
from cdl.runtime.errors import CdlError


def test_without_prompts_it_is_timm(toy_backbone):
    backbone = toy_backbone()
    images = torch.rand(3, 3, 8, 8)
    expected = backbone.model.forward_features((images - 0.5) / 0.5)
    torch.testing.assert_close(backbone.encode(images).tokens, expected)
    torch.testing.assert_close(backbone.query(images), expected[:, 0])


def test_packed_products_and_gradients_equal_torchs_up_to_rounding(toy_backbone):
    plain, packed = toy_backbone(), toy_backbone().place(Compute.select("cpu"))
    maps = [type(m).__name__ for m in packed.modules() if hasattr(m, "weight")]
    assert maps.count("PackedLinear") == 4 * packed.depth
    assert packed.state_dict().keys() == plain.state_dict().keys()
    images, gradients = torch.rand(2, 3, 8, 8), []
    prefix = [torch.randn(2, 3, 12) for _ in range(2)]
    torch.testing.assert_close(packed.query(images), plain.query(images))
    for backbone in (plain, packed, packed):
        learnt = [half.clone().requires_grad_() for half in prefix]
        features = backbone.encode(images, Injection(prefixes={1: tuple(learnt)})).features
        gradients.append(torch.autograd.grad(features.square().sum(), learnt))
    torch.testing.assert_close(gradients[0], gradients[1])
    assert all(map(torch.equal, gradients[1], gradients[2]))


def test_attention_by_products_equals_torchs_and_masks_use_torchs():
    source = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(2, 3, n, 8, generator=source, dtype=torch.float64) for n in (5, 7, 7)
    )
    expected = F.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(by_products(query, key, value), expected)
    half = [tensor.bfloat16() for tensor in (query, key, value)]
    torch.testing.assert_close(AttentionInjector()(*half), by_products(*half), rtol=0, atol=0)
    mask = (torch.arange(7) < 4).expand(5, 7)
    masked = F.scaled_dot_product_attention(*half, attn_mask=mask)
    torch.testing.assert_close(AttentionInjector()(*half, attn_mask=mask), masked, rtol=0, atol=0)
    exact = [tensor.float() for tensor in (query, key, value)]
    fused = F.scaled_dot_product_attention(*exact)
    torch.testing.assert_close(AttentionInjector()(*exact), fused, rtol=0, atol=0)


@pytest.mark.parametrize("kind", [bool, float])
def test_a_mask_hides_padding_and_no_injected_key(kind):
    source = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, 6, 4, generator=source) for _ in range(3))
    pairs = {n: torch.randn(2, n, 12, generator=source) for n in (2, 5)}
    injection = Injection(
        prefixes={0: (pairs[5][:, :3], pairs[5][:, 2:])}, suffixes={0: tuple(pairs[2])}
    )
    visible = torch.arange(6) < 4
    mask = visible.expand(2, 1, 6, 6)
    mask = mask if kind is bool else torch.zeros(2, 1, 6, 6).masked_fill(~mask, -torch.inf)
    injector = AttentionInjector()
    injector.set(injection, 0)
    masked = injector(query, key, value, attn_mask=mask)
    alone = injector(query, key[:, :, :4], value[:, :, :4])
    torch.testing.assert_close(masked, alone)
    assert not torch.allclose(masked, injector(query, key, value))


def test_an_appended_token_sees_what_any_token_sees_and_is_seen():
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 1, 0]]).bool()[None]
    wide = widened(mask, 5, 5, 1, 0)[0]
    assert torch.equal(wide[:4, 1:5], mask[0]) and wide[:, 0].all() and wide[:, 5].all()
    assert wide[4].tolist() == [True, True, True, True, False, True]
    assert widened(mask, 4, 4, 0, 0) is mask
    assert widened(mask[:, :1], 5, 5, 0, 2).shape == (1, 1, 7)


def test_a_weight_that_learns_is_not_packed(toy_backbone):
    backbone = toy_backbone()
    backbone.model.requires_grad_(True)
    backbone.place(Compute.select("cpu"))
    assert not any(type(m).__name__ == "PackedLinear" for m in backbone.modules())


def test_prefixes_keep_the_number_of_tokens_and_change_every_token(toy_backbone):
    backbone = toy_backbone()
    images = torch.rand(2, 3, 8, 8)
    plain = backbone.encode(images, keep_blocks=6)
    prefix = (torch.randn(2, 3, 12), torch.randn(2, 3, 12))
    prompted = backbone.encode(images, Injection(prefixes={1: prefix}), keep_blocks=6)
    assert prompted.tokens.shape == plain.tokens.shape
    assert torch.equal(plain.blocks[0], prompted.blocks[0])
    assert not torch.isclose(plain.blocks[1], prompted.blocks[1]).all(-1).any()


PREFIX, SUFFIX, ADDITION = ((torch.ones(n),) * 2 for n in ((2, 3, 12), (3, 12), 12))


@pytest.mark.parametrize(
    ("injection", "first"),
    [
        (Injection(prefixes={3: PREFIX}), 3),
        (Injection(prefixes={4: PREFIX}, additions={1: ADDITION}), 1),
        (Injection(suffixes={5: SUFFIX}), 5),
        (Injection(token=torch.ones(1, 12)), 0),
        (Injection(), 6),
    ],
)
def test_a_pass_resumes_at_the_first_injection_with_equal_output(toy_backbone, injection, first):
    backbone, ran = toy_backbone(), []
    images = torch.rand(2, 3, 8, 8)
    plain = backbone.encode(images, keep_inputs=True)
    alone = backbone.encode(images, injection, keep_blocks=6)
    for layer, block in enumerate(backbone.model.blocks):
        block.register_forward_hook(lambda *_, layer=layer: ran.append(layer))
    second = backbone.encode(images, injection, keep_blocks=6, resume_from=plain.block_inputs)
    assert ran == list(range(first, 6))
    pairs = zip((alone.tokens, *alone.blocks), (second.tokens, *second.blocks), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_prefix_and_suffix_give_the_same_attention(toy_backbone):
    vit = toy_backbone().model
    images, pair = torch.rand(2, 3, 8, 8), (torch.randn(3, 12), torch.randn(3, 12))
    before = tuple(t.expand(2, -1, -1) for t in pair)
    torch.testing.assert_close(
        encode(vit, images, Injection(prefixes={2: before})).tokens,
        encode(vit, images, Injection(suffixes={2: pair})).tokens,
    )


def test_additions_of_zeros_change_nothing(toy_backbone):
    vit = toy_backbone().model
    images = torch.rand(2, 3, 8, 8)
    zeros = {0: (torch.zeros(12), torch.zeros(12))}
    torch.testing.assert_close(
        encode(vit, images, Injection(additions=zeros)).tokens, encode(vit, images).tokens
    )


def test_a_copy_accepts_prefixes_and_neither_keeps_them(toy_backbone):
    backbone = toy_backbone()
    images, prefix = torch.rand(2, 3, 8, 8), (torch.randn(2, 3, 12), torch.randn(2, 3, 12))
    learnt = tuple(2 * t.requires_grad_() for t in prefix)
    plain, prompted = (backbone.encode(images, Injection(p)).tokens for p in ({}, {1: learnt}))
    copied = copy.deepcopy(backbone)
    assert torch.equal(copied.encode(images, Injection({1: learnt})).tokens, prompted)
    assert torch.equal(copied.encode(images).tokens, plain)
    assert torch.equal(copied.model.forward_features((images - 0.5) / 0.5), plain)


def test_backbone_is_frozen_and_stays_in_eval_mode(toy_backbone):
    backbone = toy_backbone()
    backbone.train()
    assert not any(module.training for module in backbone.modules())
    assert not any(p.requires_grad for p in backbone.parameters())


@pytest.mark.parametrize("model", ["vit_micro_patch4_32", "vit_nano_patch4_32"])
def test_embedded_backbones_load_at_other_sizes(tmp_path, model):
    path = tmp_path / "b.safetensors"
    fetch(path, "embedded", model)
    backbone = FrozenViT.load(path, 16, "backbone")
    assert backbone.encode(torch.rand(1, 3, 16, 16)).tokens.shape == (1, 17, backbone.width)
    assert backbone.mean.flatten().tolist() == [0.5] * 3
    assert FrozenViT.load(path, 32, "unit").mean.flatten().tolist() == [0.0] * 3
    with pytest.raises(CdlError, match="view size 18 is not a multiple of the patch size 4"):
        FrozenViT.load(path, 18, "backbone")


def header(**changes):
    shape = {"img_size": 8, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 3}
    return {k: str(v) for k, v in (shape | {"mean": "0 0 0", "std": "1 1 1"} | changes).items()}


def test_a_local_file_and_errors_in_it(tmp_path):
    vit = VisionTransformer(
        img_size=8, patch_size=4, embed_dim=12, depth=2, num_heads=3, num_classes=0
    )
    file, output = tmp_path / "mine.safetensors", tmp_path / "b.safetensors"
    save_file(vit.state_dict(), file, header())
    fetch(output, "file", str(file))
    images = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(
        FrozenViT.load(output, 8, "backbone").query(images), vit.eval()(images)
    )
    save_file(vit.state_dict(), file, header(depth=3))
    with pytest.raises(CdlError, match="does not have the tensors"):
        fetch(output, "file", str(file))
    save_file(vit.state_dict(), file, {})
    with pytest.raises(CdlError, match="lacks"):
        fetch(output, "file", str(file))
    with pytest.raises(CdlError, match="cannot be read"):
        fetch(output, "file", str(tmp_path / "absent.safetensors"))


def test_a_damaged_backbone_is_refused(tmp_path):
    path = tmp_path / "b.safetensors"
    fetch(path, "embedded", "vit_nano_patch4_32")
    raw = bytearray(path.read_bytes())
    raw[-100] ^= 1
    path.write_bytes(raw)
    with pytest.raises(CdlError, match="sha256"):
        FrozenViT.load(path, 16, "backbone")


def test_fingerprints_depend_on_values_only():
    a = {"x": torch.ones(2), "y": torch.zeros(3)}
    b = {"y": torch.zeros(3), "x": torch.ones(2)}
    assert artifacts.fingerprint_tensors(a) == artifacts.fingerprint_tensors(b)
    b["x"] = torch.tensor([1.0, 1.0001])
    assert artifacts.fingerprint_tensors(a) != artifacts.fingerprint_tensors(b)
