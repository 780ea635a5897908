"""Files of weights: their model, the tensors that are kept, and errors in them."""

import copy
import io
import json
import pickle

import pytest
import timm
import torch
from forked import run_module
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from cdl.backbones.check import Checked, check, import_weights
from cdl.backbones.fetch import fetch
from cdl.backbones.images import FrozenViT
from cdl.backbones.weights import read_pickled
from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError

NAME = "test_vit"  # timm's smallest: width 64, 6 blocks, 160 px


@pytest.fixture
def published():
    """A classifier as timm would publish it."""
    torch.manual_seed(0)
    return timm.create_model(NAME, num_classes=5).eval()


def feature(model, images, mean=0.5, std=0.5):
    return model.forward_head(model.forward_features((images - mean) / std), pre_logits=True)


@pytest.mark.parametrize("given", ["header", "argument"])
def test_a_file_of_a_timm_model_needs_only_its_name(published, given, tmp_path):
    file, output = tmp_path / "mine.safetensors", tmp_path / "b.safetensors"
    header = {"mean": "[0.5, 0.5, 0.5]", "std": "0.25, 0.25, 0.25"}
    argument = {"timm_model": NAME} if given == "argument" else {}
    save_file(published.state_dict(), file, header | ({} if argument else {"timm_model": NAME}))
    fetch(output, "file", str(file), **argument)
    images = torch.rand(2, 3, 160, 160)
    expected = feature(published, images, 0.5, 0.25)
    query = FrozenViT.load(output, 160, "backbone").query(images)
    torch.testing.assert_close(query, expected, rtol=0, atol=1e-5)
    record = artifacts.read_json(output.with_suffix(".json"))
    assert record["timm_model"] == NAME
    assert record["architecture"]["global_pool"] == "token"


def test_mean_and_std_default_to_those_of_the_models_tag(published, tmp_path):
    file, output = tmp_path / "mine.safetensors", tmp_path / "b.safetensors"
    save_file(published.state_dict(), file)
    fetch(output, "file", str(file), timm_model=f"{NAME}.r160_in1k")
    config = timm.get_pretrained_cfg(f"{NAME}.r160_in1k")
    record = artifacts.read_json(output.with_suffix(".json"))
    assert (record["mean"], record["std"]) == (list(config.mean), list(config.std))
    assert record["interpolation"] == config.interpolation


def changed(state, name):
    state = dict(state)
    if name == "missing":
        del state["blocks.3.attn.qkv.weight"]
    elif name == "another shape":
        state["norm.weight"] = state["norm.weight"][:32].clone()
    else:
        state["adapter.weight"] = torch.ones(1)
    return state


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "missing: blocks.3.attn.qkv.weight$"),
        ("another shape", r"wrong shape: norm.weight .32,., expected .64,.$"),
        ("unknown", "unknown: adapter.weight$"),
    ],
)
def test_tensors_that_differ_from_the_models_are_one_error(published, name, message, tmp_path):
    file = tmp_path / "mine.safetensors"
    save_file(changed(published.state_dict(), name), file)
    with pytest.raises(CdlError, match=f"does not have the tensors of timm's {NAME}: {message}"):
        fetch(tmp_path / "b.safetensors", "file", str(file), timm_model=NAME)


def test_a_refused_family_is_one_error(tmp_path):
    file = tmp_path / "mine.safetensors"
    save_file({"x": torch.ones(1)}, file)
    message = "'mobilenetv5_300m_enc': its output is .*; expected one feature vector"
    with pytest.raises(CdlError, match=message):
        fetch(tmp_path / "b.safetensors", "file", str(file), timm_model="mobilenetv5_300m_enc")


def test_an_artifact_of_earlier_versions_loads(tmp_path):
    output = tmp_path / "b.safetensors"
    fetch(output, "embedded", "vit_nano_patch4_32")
    images = torch.rand(1, 3, 16, 16)
    expected = FrozenViT.load(output, 16, "backbone").query(images)
    state, record = artifacts.load(output)
    keys = ("model", "architecture", "mean", "std", "file_sha256", "fingerprint")
    artifacts.save(output, state, {key: record[key] for key in keys})
    assert torch.equal(FrozenViT.load(output, 16, "backbone").query(images), expected)


def test_checkpoints_of_other_programs_are_imported_without_running_code(published, tmp_path):
    """A checkpoint as MoCo v3, DINO and iBOT publish them: nested, prefixed, with more inside."""
    own = {f"module.base_encoder.{k}": v for k, v in published.state_dict().items()}
    file, output = tmp_path / "release.pth", tmp_path / "mine.safetensors"
    more = {"module.predictor.0.weight": torch.ones(2), "module.base_encoder.extra": torch.ones(1)}
    torch.save({"epoch": 3, "state_dict": own | more}, file)
    assert import_weights(file, NAME, output) == ["extra", "head"]
    kept = load_file(output)
    assert torch.equal(kept["norm.weight"], published.norm.weight)
    fetch(tmp_path / "b.safetensors", "file", str(output))
    images = torch.rand(1, 3, 160, 160)
    config = timm.get_pretrained_cfg(NAME)
    normalised = [torch.tensor(x).view(3, 1, 1) for x in (config.mean, config.std)]
    torch.testing.assert_close(
        FrozenViT.load(tmp_path / "b.safetensors", 160, "backbone").query(images),
        feature(published, images, *normalised),
        rtol=0,
        atol=1e-5,
    )


class Hostile:
    def __reduce__(self):
        return print, ("this must not be printed",)


def test_a_file_with_code_is_refused(tmp_path, capsys):
    file = tmp_path / "release.pth"
    torch.save({"state_dict": Hostile()}, file)
    with pytest.raises(CdlError, match="contains more than tensors"):
        import_weights(file, NAME, tmp_path / "mine.safetensors")
    file.write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(CdlError, match="cannot be read|contains more than tensors"):
        import_weights(file, NAME, tmp_path / "mine.safetensors")
    file.write_bytes(b"no weights")
    with pytest.raises(CdlError, match="cannot be read|contains more than tensors"):
        import_weights(file, NAME, tmp_path / "mine.safetensors")
    assert not (tmp_path / "mine.safetensors").exists()
    assert "must not" not in capsys.readouterr().out


def test_a_check_describes_a_model_and_compares_it_with_timm(published, tmp_path, monkeypatch):
    file = tmp_path / "mine.safetensors"
    save_file(published.state_dict(), file)
    found = check(NAME, file)
    entrances = ("mlp", "qkv", "tokens")
    expected = Checked(NAME, 64, 6, 101, "class token", found.difference, entrances=entrances)
    assert found == expected
    assert 0 <= found.difference <= 1e-5
    assert "expected one feature vector" in check("mobilenetv5_300m_enc").problem

    def other(vit, images):
        spoilt = copy.deepcopy(vit)
        spoilt.norm.bias.data += 1
        return encode(spoilt, images)

    from cdl.backbones.vit import encode

    monkeypatch.setattr("cdl.backbones.check.encode", other)
    assert "its output differs from timm's" in check(NAME).problem


def cdl(*arguments, folder):
    return run_module("cdl", "backbones", *arguments, torch=True, cwd=folder)


def test_the_commands_print_text_and_json(published, tmp_path):
    listed = cdl("list", "dinov3", folder=tmp_path)
    assert "  vit_small_patch16_dinov3.lvd1689m\n" in listed.stdout
    assert "swin" not in listed.stdout
    (entry,) = json.loads(cdl("list", "test_vit3", "--json", folder=tmp_path).stdout)
    assert (entry["width"], entry["pooling"]) == (96, "attention pool")
    assert cdl("list", "nonsense", folder=tmp_path).returncode == 1

    torch.save(published.state_dict(), tmp_path / "x.pth")
    imported = cdl("import", "x.pth", "--model", NAME, folder=tmp_path)
    assert imported.stdout == f"x.safetensors: {NAME}; dropped: head\n"
    both = cdl("check", NAME, "mobilenetv5_300m_enc", folder=tmp_path)
    assert both.returncode == 1
    first, second = both.stdout.splitlines()
    assert first.startswith(
        f"{NAME}: width 64, 6 blocks, 101 tokens, class token, largest difference "
    )
    assert ", entrances mlp qkv tokens, methods l2p " in first and first.endswith(": ok")
    assert second.startswith("mobilenetv5_300m_enc: 'mobilenetv5_300m_enc': its output is ")
    one = cdl("check", NAME, "--weights", "x.safetensors", "--json", folder=tmp_path)
    assert one.returncode == 0
    assert json.loads(one.stdout)[0]["problem"] == ""
    wrong = cdl("check", NAME, "--weights", "absent.safetensors", folder=tmp_path)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    "raw", [b"", b"hello\nworld\n", b"name,x\n1,2\n", b"{}", b"(lp0\n.", b"import torch\n"]
)
def test_a_file_of_another_kind_is_refused_in_a_sentence(tmp_path, raw):
    file = tmp_path / "mine.pth"
    file.write_bytes(raw)
    with pytest.raises(CdlError, match="mine.pth' (cannot be read: it is damaged|contains no)"):
        read_pickled(file)
    with pytest.raises(CdlError, match="none.pth' cannot be read: No such file"):
        read_pickled(tmp_path / "none.pth")


@pytest.mark.parametrize("zipped", [True, False])
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_in_a_sentence(tmp_path, zipped, data):
    buffer = io.BytesIO()
    torch.save({"a": torch.arange(3.0)}, buffer, _use_new_zipfile_serialization=zipped)
    raw, file = bytearray(buffer.getvalue()), tmp_path / "mine.pth"
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(raw[: data.draw(st.sampled_from([len(raw), len(raw) // 2]))])
    try:
        assert all(isinstance(tensor, torch.Tensor) for tensor in read_pickled(file).values())
    except CdlError as error:
        assert "mine.pth" in str(error) and "\n" not in str(error)


def change(state, name, function):
    return {**state, name: function(state[name])}


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda t: t * float("nan"), r"invalid values in norm.weight \(torch.float32\)"),
        (lambda t: t.to(torch.complex64), r"invalid values in norm.weight \(torch.complex64\)"),
        (lambda t: t.long(), r"invalid values in norm.weight \(torch.int64\)"),
        (lambda t: t.to_sparse(), "missing: norm.weight"),
        (lambda t: t.to("meta"), "missing: norm.weight"),
    ],
)
def test_values_that_no_backbone_can_have_are_refused(published, tmp_path, function, message):
    file, output = tmp_path / "mine.pth", tmp_path / "mine.safetensors"
    torch.save(change(published.state_dict(), "norm.weight", function), file)
    with pytest.raises(CdlError, match=message):
        import_weights(file, NAME, output)
    assert not output.exists()


def test_shapes_that_timms_conversion_does_not_expect_are_refused(published, tmp_path):
    file, output = tmp_path / "mine.pth", tmp_path / "mine.safetensors"
    torch.save(change(published.state_dict(), "pos_embed", lambda _: torch.ones(3)), file)
    with pytest.raises(CdlError, match="does not have the tensors of timm's test_vit"):
        import_weights(file, NAME, output)


def test_tensors_that_share_memory_and_a_container_in_itself_are_read(published, tmp_path):
    file, output = tmp_path / "mine.pth", tmp_path / "mine.safetensors"
    state = published.state_dict()
    torch.save(change(state, "norm.bias", lambda _: state["blocks.0.norm1.bias"]), file)
    import_weights(file, NAME, output)
    assert torch.equal(load_file(output)["norm.bias"], state["blocks.0.norm1.bias"])
    endless = {"w": torch.ones(1)}
    endless["model"] = endless
    torch.save(endless, file)
    assert list(read_pickled(file)) == ["w"]
