"""Entrances into the blocks of every family, with other injections, packed and in bf16."""

import copy
from functools import partial

import pytest
import torch
from test_timm_families import small

from cdl.backbones.architectures import find
from cdl.backbones.inside import CLOSED, Inside, available, merged
from cdl.backbones.shape import ENTRANCES
from cdl.backbones.vit import Injection, encode
from cdl.methods.adapters import Adapters
from cdl.methods.ssf import SSF
from cdl.runtime.compute import Compute

FAMILIES = """
    aimv2_1b_patch14_224 beit3_base_patch16_224 test_vit2 test_vit3 vit_base_patch14_dinov2
    vit_base_patch16_18x2_224 vit_base_patch16_gap_224 vit_base_patch16_reg4_gap_256
    vit_base_patch16_xp_224 vit_wee_patch16_reg1_gap_256 vit_dwee_patch16_reg1_gap_256
    vit_dpwee_patch16_reg1_gap_256 eva02_base_patch14_224 eva02_enormous_patch14_clip_224
    eva02_tiny_patch14_224 vit_base_patch16_dinov3 vit_base_patch16_rope_mixed_224
    vit_pe_core_base_patch16_224 vit_base_patch16_sapiens2 deit_base_distilled_patch16_224
""".split()  # one of every kind of block, attention and embedding


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def branches(width, depth, parts="qkv", rank=3):
    source = seeded(2)

    def pair():
        down = torch.randn(rank, width, generator=source) / width**0.5
        return down, torch.randn(width, rank, generator=source) / rank

    return Inside(branches={layer: {part: pair() for part in parts} for layer in range(depth)})


def random_adapters(width, depth):
    adapters = Adapters(width, depth, seeded(), bottleneck=4, dropout=0.0)
    with torch.no_grad():
        for parameter in adapters.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=seeded(1)), alpha=0.3)
    return adapters


def images_of(vit):
    return torch.rand(2, 3, *vit.patch_embed.img_size, generator=seeded(3))


def features(vit, inside=CLOSED, **others):
    with torch.no_grad():
        return encode(vit, images_of(vit), Injection(inside=inside, **others)).features[:, 0]


def without_mlp(vit):
    """A copy whose MLPs return 0, so that a block returns the input of norm2."""
    made = copy.deepcopy(vit)
    for block in made.blocks:
        block.mlp.register_forward_hook(lambda module, args, output: torch.zeros_like(output))
    return made


@pytest.mark.parametrize("name", FAMILIES)
def test_entrances_of_every_family_are_where_they_should_be(name):
    vit = small(name)
    entrances = available(vit, lambda: encode(vit, images_of(vit)))
    if name != "vit_base_patch16_sapiens2":  # which `small` gives grouped heads
        assert entrances == find(name).shape.entrances
    width, depth = vit.embed_dim, len(vit.blocks)
    plain = features(vit)
    assert set(entrances) <= set(ENTRANCES) and "tokens" in entrances
    if "mlp" in entrances:
        seen = {}

        def adapter(layer, u):
            seen[layer] = u
            return torch.zeros_like(u)

        last = depth - 1
        encode(
            without_mlp(vit),
            images_of(vit),
            Injection(inside=Inside({last: partial(adapter, last)})),
        )
        bare = without_mlp(vit)
        outputs = []
        bare.blocks[last].register_forward_hook(lambda m, a, output: outputs.append(output))
        encode(bare, images_of(vit))
        torch.testing.assert_close(seen[last], outputs[0])  # u is what the block adds the MLP to
        shift = Inside({last: lambda u: torch.linspace(-1, 1, width).expand_as(u)})
        assert not torch.allclose(features(vit, shift), plain)
    if "qkv" in entrances:
        inside = branches(width, depth)
        changed = features(vit, inside)
        assert not torch.allclose(changed, plain, atol=1e-3)
        torch.testing.assert_close(changed, features(merged(vit, inside)), rtol=1e-4, atol=1e-4)
    if "affine" in entrances:
        inside = SSF(width, depth, seeded()).inside()
        changed = features(vit, inside)
        assert not torch.allclose(changed, plain, atol=1e-3)
        torch.testing.assert_close(changed, features(merged(vit, inside)), rtol=1e-4, atol=1e-4)
    tokens = Inside(tokens={0: torch.zeros(3, width), depth - 1: torch.ones(3, width)})
    found = features(vit, tokens)
    assert found.shape == plain.shape and not torch.equal(found, plain)
    assert torch.equal(features(vit), plain)  # without them the weights are the plain ones


def test_families_with_other_blocks_lack_entrances():
    def has(name):
        return set(find(name).shape.entrances)

    assert has("vit_base_patch16_18x2_224") == {"tokens"}  # two MLPs in parallel
    assert has("vit_dpwee_patch16_reg1_gap_256") == {"tokens"}  # attention and MLP in parallel
    assert "mlp" not in has("eva02_enormous_patch14_clip_224")  # norms after attention and MLP
    assert "qkv" not in has("vit_5b_patch16_sapiens2")  # fewer heads of keys and values
    assert has("vit_base_patch16_224") == set(ENTRANCES)


def test_prefixes_tokens_and_a_kd_token_work_together_with_modules_inside(toy_backbone):
    backbone = toy_backbone(12, 3)
    adapters = random_adapters(12, 3).inside()
    inside = Inside(adapters.adapters, branches(12, 3).branches, tokens={1: torch.ones(2, 12)})
    pair = torch.randn(1, 4, 12, generator=seeded(5)), torch.randn(1, 4, 12, generator=seeded(6))
    others = {"prefixes": {0: pair, 2: pair}, "token": torch.ones(1, 12)}
    images = torch.rand(2, 3, 8, 8, generator=seeded())
    found = [
        backbone.encode(images, Injection(inside=i, **o)).tokens
        for i in (CLOSED, inside)
        for o in ({}, others)
    ]
    assert [x.shape[1] for x in found] == [5, 6, 5, 6]
    assert all(
        not torch.allclose(a, b)
        for a, b in zip(found[:-1], found[1:], strict=True)
        if a.shape == b.shape
    )
    assert not torch.allclose(found[1], found[3])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_modules_enter_after_weights_are_packed_or_cast(toy_backbone, dtype):
    images = torch.rand(3, 3, 8, 8, generator=seeded())
    inside = Inside(random_adapters(12, 3).inside().adapters, branches(12, 3, "kv").branches)
    plain, packed = toy_backbone(12, 3), toy_backbone(12, 3)
    expected = plain.encode(images, Injection(inside=inside)).features
    query = plain.query(images)
    before = packed.encode(images, Injection(inside=inside)).features
    packed.place(Compute(torch.device("cpu"), dtype))
    tolerance = (
        {"rtol": 1e-4, "atol": 1e-5} if dtype is torch.float32 else {"rtol": 0.1, "atol": 0.1}
    )
    torch.testing.assert_close(before, expected)
    torch.testing.assert_close(
        packed.encode(images, Injection(inside=inside)).features, expected, **tolerance
    )
    torch.testing.assert_close(packed.query(images), query, **tolerance)
    assert not torch.allclose(query, expected[:, 0], atol=0.05)


def test_a_pass_that_resumes_equals_a_whole_one(toy_backbone):
    backbone = toy_backbone(12, 4)
    images = torch.rand(2, 3, 8, 8, generator=seeded())
    begun = backbone.encode(images, keep_inputs=True).block_inputs
    late = Inside(adapters={2: random_adapters(12, 4)[2]})
    for inside in (late, branches(12, 4), SSF(12, 4, seeded()).inside()):
        injection = Injection(inside=inside)
        whole = backbone.encode(images, injection).features
        torch.testing.assert_close(
            backbone.encode(images, injection, resume_from=begun).features, whole
        )


def test_gradients_are_computed_and_kept_only_behind_the_first_entrance(toy_backbone):
    backbone = toy_backbone(12, 4)
    adapters = random_adapters(12, 4)
    images = torch.rand(2, 3, 8, 8, generator=seeded())
    inside = Inside(adapters={2: adapters[2]})
    encoded = backbone.encode(images, Injection(inside=inside), keep_blocks=4)
    assert [block.requires_grad for block in encoded.blocks] == [False, False, True, True]
    kept = []
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t)
    with hooks:
        backbone.encode(images, Injection(inside=inside)).features.sum().backward()
    frozen = {id(p) for p in backbone.model.blocks[0].parameters()}
    assert not frozen & {id(t) for t in kept}
    assert all(p.grad is None for p in backbone.parameters())
    assert all(p.grad is not None for p in adapters[2].parameters())


def test_what_watches_sees_the_inputs_of_the_projections_once(toy_backbone):
    backbone, seen = toy_backbone(12, 2), {}
    images = torch.rand(2, 3, 8, 8, generator=seeded())
    watch = {layer: partial(seen.__setitem__, layer) for layer in range(2)}
    plain = backbone.encode(images).features
    watched = backbone.encode(images, Injection(inside=Inside(watch=watch))).features
    assert torch.equal(plain, watched)
    block = backbone.model.blocks[0]
    first = block.norm1(backbone.encode(images, keep_inputs=True).block_inputs.inputs[0])
    torch.testing.assert_close(seen[0], first)
    assert seen[1].shape == (2, 5, 12)


def test_a_failing_pass_closes_the_entrances(toy_backbone):
    backbone = toy_backbone(12, 2)
    images = torch.rand(1, 3, 8, 8, generator=seeded())
    plain = backbone.encode(images).features

    def fail(u):
        raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        backbone.encode(images, Injection(inside=Inside(adapters={1: fail})))
    assert torch.equal(backbone.encode(images).features, plain)
