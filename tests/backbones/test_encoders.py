"""Text encoders against transformers' own forward pass, prompts in them, and refusals."""

import copy
import json

import pytest
import torch
from toy_text import KINDS, WORDS, model_of, save, word_tokenizer

from cdl.backbones import encoders, pretrained, text_models
from cdl.backbones.attention import Injection
from cdl.backbones.check import check
from cdl.backbones.encoders import Encoder
from cdl.backbones.fetch import fetch
from cdl.backbones.inside import Inside
from cdl.data.text import encoded
from cdl.device.tokens import ABSENT
from cdl.runtime import artifacts
from cdl.runtime.compute import Compute
from cdl.runtime.errors import CdlError

TEXTS = ["book a table for two", "cancel", "where is my parcel please"]


def load(folder, kind="bert", size=16, **options):
    save(folder / "model", kind, **options)
    fetch(folder / "made.safetensors", "folder", str(folder / "model"))
    return Encoder.load(folder / "made.safetensors", size, "backbone")


def pair_of(n=2, batch=3, seed=0):
    source = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(batch, n, 12, generator=source) for _ in range(2))


@pytest.mark.parametrize("kind", KINDS)
def test_without_prompts_it_is_transformers(tmp_path, kind):
    backbone = load(tmp_path, kind)
    assert check(str(tmp_path / "model")).problem == ""
    inputs = backbone.prepare(encoded(TEXTS))
    theirs = model_of(kind)
    state, _ = artifacts.load(tmp_path / "made.safetensors")
    state.pop("tokenizer")
    theirs.pooler = None
    theirs.load_state_dict(state)
    present = inputs != ABSENT
    given = {"input_ids": inputs.where(present, 1), "attention_mask": present.long()}
    expected = theirs(**given).last_hidden_state
    found = backbone.encode(inputs)
    torch.testing.assert_close(found.tokens[present], expected[present])
    for row, own in enumerate(present):
        torch.testing.assert_close(found.features[row, 0], expected[row, own].mean(0))


@pytest.mark.parametrize("kind", KINDS)
def test_padding_and_resuming_change_nothing_with_prompts(tmp_path, kind):
    backbone = load(tmp_path, kind)
    inputs = backbone.prepare(encoded(TEXTS))
    plain = backbone.encode(inputs, keep_inputs=True)
    assert torch.equal(plain.features, backbone.query(inputs)[:, None])
    token = torch.randn(1, 12, generator=torch.Generator().manual_seed(1))
    parts = {"prefixes": {1: pair_of()}, "suffixes": {0: tuple(t[0] for t in pair_of(3))}}
    parts["additions"] = {1: tuple(t[0, 0] for t in pair_of(1, seed=2))}
    for given in ({"prefixes": parts["prefixes"]}, parts, {"token": token, **parts}):
        whole = backbone.encode(inputs, Injection(**given), keep_blocks=2)
        resumed = backbone.encode(inputs, Injection(**given), resume_from=plain.block_inputs)
        assert torch.equal(whole.tokens, resumed.tokens)
        assert not torch.isclose(whole.features[:, :1], plain.features).all(-1).any()
        n = 1 + ("token" in given)
        assert whole.features.shape == (3, n, 12) and len(whole.blocks) == 2
        assert whole.blocks[0].shape == (3, inputs.shape[1] + n - 1, 12)
        own = {k: dict(v) if k != "token" else v for k, v in given.items()}
        own["prefixes"] = {1: tuple(t[1:2] for t in parts["prefixes"][1])}
        alone = backbone.encode(inputs[1:2, :3], Injection(**own))  # "cancel" without padding
        torch.testing.assert_close(alone.features[0], whole.features[1])


def branches(rank=2):
    source = torch.Generator().manual_seed(3)

    def pair():
        return tuple(torch.randn(size, generator=source) for size in ((rank, 12), (12, rank)))

    return {layer: {part: pair() for part in "qkv"} for layer in range(2)}


@pytest.mark.parametrize("kind", KINDS)
def test_modules_enter_the_blocks_of_every_architecture(tmp_path, kind):
    backbone = load(tmp_path, kind)
    assert backbone.shape.entrances == ("mlp", "qkv")
    inputs = backbone.prepare(encoded(TEXTS))
    plain = backbone.encode(inputs, keep_inputs=True)
    mix = torch.randn(12, 12, generator=torch.Generator().manual_seed(4)) / 4
    for inside in (
        Inside(branches=branches()),
        Inside(adapters={1: lambda u: u @ mix}),
        Inside(adapters={0: lambda u: u @ mix, 1: lambda u: -u}, branches=branches()),
    ):
        whole = backbone.encode(inputs, Injection(inside=inside))
        assert not torch.isclose(whole.features, plain.features).all(-1).any()
        given = Injection(inside=inside, prefixes={1: pair_of()}, token=torch.ones(1, 12))
        wide = backbone.encode(inputs, given)
        resumed = backbone.encode(inputs, given, resume_from=plain.block_inputs)
        assert torch.equal(wide.tokens, resumed.tokens)
        alone = backbone.encode(inputs[1:2, :3], Injection(inside=inside))  # without padding
        torch.testing.assert_close(alone.features[0], whole.features[1])
        assert torch.equal(backbone.query(inputs), plain.features[:, 0])
    inside = Inside(branches=branches())
    merged = backbone.merged(inside)
    torch.testing.assert_close(
        merged.query(inputs)[:, None], backbone.encode(inputs, Injection(inside=inside)).features
    )
    assert torch.equal(backbone.query(inputs), plain.features[:, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_reads_what_the_output_of_the_mlp_is_added_to(tmp_path, kind):
    backbone, seen = load(tmp_path, kind), {}
    block = backbone.blocks[1]
    silent = block.get_submodule(pretrained.SITES[kind].add)
    silent.register_forward_hook(lambda module, args, output: torch.zeros_like(output))

    def adapter(u):
        seen["u"] = u
        return torch.zeros_like(u)

    inputs = backbone.prepare(encoded(TEXTS))
    given = Injection(inside=Inside(adapters={1: adapter}))
    (found,) = backbone.encode(inputs, given, keep_blocks=1).blocks
    norms = [m for m in block.modules() if isinstance(m, torch.nn.LayerNorm)]
    expected = seen["u"] if kind == "modernbert" else norms[-1](seen["u"])
    present = inputs != ABSENT
    torch.testing.assert_close(found[present], expected[present])


def test_what_watches_the_projections_sees_no_padding(tmp_path):
    backbone, seen = load(tmp_path), []
    inputs = backbone.prepare(encoded(TEXTS))
    inside = Inside(watch={1: seen.append})
    backbone.encode(inputs, Injection(inside=inside, token=torch.ones(1, 12)))
    assert [a.shape for a in seen] == [(1, int((inputs != ABSENT).sum()) + 3, 12)]


def test_a_block_without_the_modules_is_refused(tmp_path, monkeypatch):
    changed = pretrained.Sites("gone", "output.dense", {})
    monkeypatch.setitem(text_models.SITES, "bert", changed)
    with pytest.raises(CdlError, match="a block of transformers .* has no module 'gone'"):
        load(tmp_path)


def test_gradients_reach_prompts_and_no_weight(tmp_path):
    backbone = load(tmp_path).place(Compute.select("cpu"))
    assert not any(p.requires_grad for p in backbone.parameters())
    prefix = tuple(t.requires_grad_() for t in pair_of())
    inputs = backbone.prepare(encoded(TEXTS))
    backbone.encode(inputs, Injection(prefixes={0: prefix})).features.square().sum().backward()
    assert all(t.grad.abs().sum(-1).gt(0).all() for t in prefix)
    backbone.train()
    assert not any(module.training for module in backbone.modules())


def test_a_copy_accepts_prefixes_and_half_precision_is_near(tmp_path):
    backbone = load(tmp_path)
    inputs, injection = backbone.prepare(encoded(TEXTS)), Injection(prefixes={1: pair_of()})
    expected = backbone.encode(inputs, injection).features
    assert torch.equal(copy.deepcopy(backbone).encode(inputs, injection).features, expected)
    half = copy.deepcopy(backbone).place(Compute.select("cpu", "bf16"))
    assert half.dtype == torch.bfloat16
    found = half.encode(inputs, injection).features
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=0.1, rtol=0.1)


def test_texts_become_ids_up_to_the_largest_number_of_tokens(tmp_path):
    backbone = load(tmp_path, size=5)
    inputs = backbone.prepare(encoded(TEXTS))
    known = word_tokenizer()
    first = known.encode("book a table").ids
    assert inputs[0].tolist() == first and first[0] == 2 and first[-1] == 3
    assert inputs[1].tolist() == [*known.encode("cancel").ids, ABSENT, ABSENT]
    assert backbone.blank(5).shape == (1, 5) and backbone.tokens == 5
    assert backbone.fingerprint != load(tmp_path / "other", words=WORDS[::-1]).fingerprint


def test_the_first_token_is_the_feature_if_the_card_says_so(tmp_path):
    backbone = load(tmp_path, pooling="cls")
    found = backbone.encode(backbone.prepare(encoded(TEXTS)))
    assert torch.equal(found.features[:, 0], found.tokens[:, 0])


def test_the_shape_is_known_from_the_folder_or_the_table(tmp_path, monkeypatch):
    save(tmp_path / "model")
    shape = pretrained.shape_of("folder", str(tmp_path / "model"))
    assert (shape.width, shape.depth, shape.modality) == (12, 2, "text")
    assert shape.entrances == ("mlp", "qkv") == load(tmp_path / "other").shape.entrances
    assert shape.tokenizer == load(tmp_path / "again").shape.tokenizer
    known = pretrained.shape_of("hf", "sentence-transformers/all-MiniLM-L6-v2")
    assert (known.width, known.depth, known.entrances) == (384, 6, ("mlp", "qkv"))
    assert known.positions == 512
    assert pretrained.text_shape(12, 2, "words", "unknown", None).entrances == ()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CdlError, match="run `cdl backbones fetch a/b` and then this command"):
        pretrained.shape_of("hf", "a/b")
    save(tmp_path / "data" / "backbones" / "a" / "b")
    assert pretrained.shape_of("hf", "a/b").width == 12


def test_a_model_of_the_hub_comes_from_a_mirror_and_is_recorded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "mirror" / "a" / "b")
    for _ in range(2):
        fetch("made.safetensors", "hf", "a/b", mirror="mirror")
    assert (tmp_path / "config/checksums/a/b/model.safetensors.sha256").is_file()
    assert artifacts.load("made.safetensors")[1]["encoder"]["pooling"] == "mean"
    (tmp_path / "data/backbones/a/b/config.json").write_text("{}")
    with pytest.raises(CdlError, match=r"a/b/config.json has sha256 .*, expected"):
        fetch("made.safetensors", "hf", "a/b", mirror="mirror")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "deberta-v2"}, "DeBERTa computes its scores from relative positions"),
        ({"model_type": "smell"}, "cannot build a model of type 'smell'"),
        ({"model_type": "fnet"}, "the attention of FNetModel does not accept prefixes"),
        ({"num_hidden_layers": 3}, "has no tensor 'encoder.layer.2"),
        ({"intermediate_size": 8}, r"has the shape \(24, 12\), expected \(8, 12\)"),
    ],
)
def test_what_cannot_be_prompted_is_refused_in_one_sentence(tmp_path, change, message):
    save(tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(CdlError, match=message):
        fetch(tmp_path / "made.safetensors", "folder", str(tmp_path / "model"))
    assert check(str(tmp_path / "model")).problem


def test_missing_files_and_unknown_pooling_are_named(tmp_path):
    save(tmp_path / "model", pooling=None)
    with pytest.raises(CdlError, match="set backbones.NAME.pooling to mean or cls"):
        fetch(tmp_path / "made.safetensors", "folder", str(tmp_path / "model"))
    fetch(tmp_path / "made.safetensors", "folder", str(tmp_path / "model"), pooling="cls")
    with pytest.raises(CdlError, match="invalid value 50 for .*; expected at most 40"):
        Encoder.load(tmp_path / "made.safetensors", 50, "backbone")
    (tmp_path / "model" / "tokenizer.json").unlink()
    with pytest.raises(CdlError, match="has no file tokenizer.json"):
        pretrained.shape_of("folder", str(tmp_path / "model"))


def test_revisions_of_a_model_are_files_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "mirror" / "a" / "b")
    save(tmp_path / "mirror" / "a" / "b@old", num_hidden_layers=3, seed=1)
    fetch("main.safetensors", "hf", "a/b", mirror="mirror")
    fetch("old.safetensors", "hf", "a/b", revision="old", mirror="mirror")
    made = [Encoder.load(f"{name}.safetensors", 16, "backbone") for name in ("main", "old")]
    assert [len(backbone.blocks) for backbone in made] == [2, 3]
    depths = [pretrained.shape_of("hf", "a/b", revision).depth for revision in (None, "old")]
    assert depths == [2, 3]
    with pytest.raises(CdlError, match="run `cdl backbones fetch a/b --revision new` and then"):
        pretrained.shape_of("hf", "a/b", "new")


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode": "cls", "include_prompt": True}, "cls"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, None),
        ({"pooling_mode": "lasttoken"}, None),
    ],
)
def test_pooling_is_as_the_models_card_says(tmp_path, config, found):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config))
    if found:
        assert pretrained.read_pooling(file) == found
    else:
        with pytest.raises(CdlError, match="set pooling to mean or cls"):
            pretrained.read_pooling(file)


def test_positions_of_roberta_start_behind_padding():
    model = encoders.build({"model_type": "roberta", **KINDS["roberta"]}, "it")
    assert encoders.positions_of(model) == 38


@pytest.mark.parametrize("kind", KINDS)
def test_planning_knows_the_shape_of_the_model(tmp_path, kind):
    backbone = load(tmp_path, kind)
    planned = pretrained.shape_of("folder", str(tmp_path / "model"))
    assert planned == backbone.shape and planned.positions == text_models.positions_of(
        backbone.model
    )


def test_positions_are_unknown_to_planning_if_the_configuration_has_none(tmp_path):
    folder = save(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    del config["max_position_embeddings"]
    (folder / "config.json").write_text(json.dumps(config))
    assert pretrained.shape_of("folder", str(folder)).positions is None
