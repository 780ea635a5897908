"""Files that the program writes: permissions and verification of content."""

import os
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError
from cdl.training.checkpointing import State, path_of


@pytest.fixture
def umask():
    """Return a function that sets the umask; restore the umask at the end."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_every_artifact_obeys_the_umask(tmp_path, umask, mask, mode):
    umask(mask)
    artifacts.save(tmp_path / "learner.safetensors", {"x": torch.ones(2)}, {})
    with State(str(tmp_path / "state"), {"job": 1}, minutes=0) as state:
        state.save({"x": torch.ones(2)}, {"at": [0, 1]})
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 3
    assert {path.stat().st_mode & 0o777 for path in files} == {mode}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text.replace("0.5", "0.1"), "was damaged or changed"),
        (lambda text: text.replace('"mean"', '"meaN"'), "was damaged or changed"),
        (lambda text: text.replace('"x.csv": "', '"x.csv": "0'), "was damaged or changed"),
        (lambda text: text.replace("_record", "_recorc"), "has no hash of its content"),
        (lambda text: '{"mean": 0.5}', "has no hash of its content: .* earlier version"),
        (lambda text: "[]", "cannot be read"),
        (lambda text: text.replace("0.5", "NaN"), "cannot be read"),
        (lambda text: text.replace('"sha256"', '"sha257"'), "cannot be read"),
        (lambda text: text[:-3], "cannot be read"),
        (lambda text: "[" * 100_000, "cannot be read"),
    ],
)
def test_a_damaged_record_is_refused_in_one_sentence(tmp_path, damage, message):
    path, table = tmp_path / "record.json", tmp_path / "x.csv"
    table.write_text("a,b\n1,2\n")
    artifacts.write_json(path, {"mean": 0.5, 3: (1, 2)}, files=[table])
    assert artifacts.read_json(path) == {"mean": 0.5, "3": [1, 2]}
    path.write_text(damage(path.read_text()))
    with pytest.raises(CdlError, match=rf"record.json {message}.*delete it and run again"):
        artifacts.read_json(path)


def test_a_record_verifies_its_files_and_no_others(tmp_path):
    record, table, other = (tmp_path / name for name in ("a/r.json", "b/x.csv", "b/y.csv"))
    table.parent.mkdir()
    for path in (table, other):
        path.write_text("a\n1\n")
    artifacts.write_json(record, {}, files=[table])
    artifacts.check_files(record, table)
    with pytest.raises(CdlError, match="y.csv has sha256 .* records None"):
        artifacts.check_files(record, other)
    table.write_text("a\n2\n")
    with pytest.raises(CdlError, match="x.csv has sha256 .* one of them was changed"):
        artifacts.check_files(record, table)
    table.unlink()
    with pytest.raises(CdlError, match="x.csv cannot be read"):
        artifacts.check_files(record, table)


def write_artifact(folder, seed):
    """Write an artifact with a table; return its path."""
    (folder / "losses.csv").write_text(f"epoch,loss\n0,{seed}\n")
    tensors = {"x": torch.full((4,), seed), "y": torch.tensor([seed])}
    path = folder / "learner.safetensors"
    artifacts.save(path, tensors, {"task": seed, "rate": 0.5}, files=[folder / "losses.csv"])
    return path


def believed(path, seed):
    """Read an artifact as jobs do."""
    tensors, metadata = artifacts.load(path, task=seed)
    artifacts.check_files(path.with_suffix(".json"), path.with_name("losses.csv"))
    return {name: tensor.tolist() for name, tensor in tensors.items()}, metadata


CHANGES = st.one_of(
    st.tuples(st.just("flip"), st.integers(0, 10_000), st.integers(0, 7)),
    st.tuples(st.just("cut"), st.integers(0, 10_000), st.just(0)),
    st.tuples(st.just("append"), st.binary(min_size=1, max_size=9), st.just(0)),
    st.tuples(st.just("replace"), st.binary(max_size=99), st.just(0)),
    st.tuples(st.sampled_from(["delete", "other"]), st.just(0), st.just(0)),
)


@settings(deadline=None, print_blob=True)
@given(st.dictionaries(st.sampled_from([".safetensors", ".json", ".csv"]), CHANGES, min_size=1))
def test_an_artifact_is_what_was_written_or_refused(changes):
    """Any change of its files, alone or together, also their exchange with those of another."""
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        path, other = (write_artifact(Path(f), seed) for seed, f in enumerate((first, second)))
        truth = believed(path, 0)
        for suffix, (kind, value, bit) in changes.items():
            file = next(Path(first).glob(f"*{suffix}"))
            raw = bytearray(file.read_bytes())
            if kind == "flip":
                raw[value % len(raw)] ^= 1 << bit
            elif kind == "cut":
                del raw[value % len(raw) :]
            elif kind == "append":
                raw += value
            elif kind == "replace":
                raw = value
            elif kind == "other":
                raw = (other.parent / file.name).read_bytes()
            file.unlink() if kind == "delete" else file.write_bytes(raw)
        try:
            assert believed(path, 0) == truth
        except CdlError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("key", ["../../precious", "/etc/x", "", "A" * 32, "a" * 31, None, ["a"]])
def test_an_invalid_name_of_a_state_is_refused(tmp_path, key):
    with pytest.raises(CdlError, match="state: invalid key"):
        path_of(str(tmp_path), key)


def test_a_changed_state_is_not_used(tmp_path, caplog):
    with State(str(tmp_path), {"job": 1}, minutes=0) as state:
        state.save({"x": torch.ones(2)}, {"at": [0, 1]})
        assert state.load()[1]["at"] == [0, 1]
        (path,) = tmp_path.iterdir()
        raw = path.read_bytes()
        for change in ((b"[0, 1]", b"[0, 3]"), (b"[0, 1]", b"[0, x]"), (b"state", b"stare")):
            path.write_bytes(raw.replace(*change))
            assert state.load() is None
    assert "starting from the beginning" in caplog.text


def test_an_entry_that_is_not_expected_is_a_difference(tmp_path):
    path = tmp_path / "learner.safetensors"
    artifacts.save(path, {"x": torch.ones(2)}, {"learner": {"lr": 1, "alignment": {"lr": 2}}})
    assert artifacts.load(path, learner={"lr": 1, "alignment": {"lr": 2}, "labels": None})
    with pytest.raises(CdlError, match=r"made with learner.alignment.lr = 2, expected null"):
        artifacts.load(path, learner={"lr": 1})
    assert artifacts.load(path)  # without expectations
