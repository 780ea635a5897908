"""A folder that was changed after its export is not used, and `cdl verify` names the change."""

import json
import logging
import shutil

import numpy as np
import pytest
import typer
from exported import MADE_FROM, NAMES, write_student
from hypothesis import given
from hypothesis import strategies as st

import cdl
from cdl.cli.results import verify
from cdl.deployment import manifest
from cdl.deployment.demo import site
from cdl.runtime.artifacts import read_json
from cdl.runtime.errors import CdlError

IMAGE = np.zeros((4, 4, 3), np.uint8) + np.uint8([9, 5, 1])
ALL = ("model.onnx", "classes.txt", "preprocessing.json", "card.md")


@pytest.fixture
def student(tmp_path):
    return write_student(tmp_path / "student")


def reverse_classes(folder):
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in reversed(NAMES)))


def put_another_model(folder):
    other = write_student(folder.with_name("other"), scale=-1.0)
    shutil.copy(other / "model.onnx", folder / "model.onnx")


def flip_a_weight(folder):
    raw = bytearray((folder / "model.onnx").read_bytes())
    raw[raw.index(np.float32([1, 1, 1]).tobytes()) + 3] ^= 0x80  # the sign of the first
    (folder / "model.onnx").write_bytes(raw)


def limit_the_size(folder):
    (folder / "preprocessing.json").write_text('{"input": {"most": [1, 2, 2]}}')


def add_a_program(folder):
    (folder / "model.pte").write_bytes(b"of another student")


def remove_the_preprocessing(folder):
    (folder / "preprocessing.json").unlink()


CHANGES = {
    reverse_classes: "classes.txt: was damaged or changed: its sha256 is",
    put_another_model: "model.onnx: was damaged or changed",
    flip_a_weight: "model.onnx: was damaged or changed",
    limit_the_size: "preprocessing.json: was damaged or changed",
    add_a_program: "model.pte: is not in the manifest",
    remove_the_preprocessing: "preprocessing.json: is missing",
}


@pytest.mark.parametrize(("change", "message"), CHANGES.items())
def test_a_changed_folder_is_refused_everywhere(student, capsys, change, message):
    assert cdl.load(student).predict(IMAGE) == ["red"]
    change(student)
    for use in (cdl.load, site):
        with pytest.raises(CdlError, match=f"{message}.*; export the student again"):
            use(student)
    with pytest.raises(typer.Exit) as ended:
        verify([student])
    assert ended.value.exit_code == 1
    assert message in capsys.readouterr().out


@pytest.mark.parametrize("change", [reverse_classes, put_another_model, flip_a_weight])
def test_these_changes_alter_predictions_and_can_be_loaded_without_the_check(student, change):
    change(student)
    assert cdl.load(student, verify=False).predict(IMAGE) != ["red"]


def test_a_changed_file_of_external_weights_is_refused(tmp_path):
    folder = write_student(tmp_path / "student", external=True)
    assert cdl.load(folder).predict(IMAGE) == ["red"]
    file = folder / "model.onnx.data"
    file.write_bytes(file.read_bytes().replace(np.float32(1).tobytes(), np.float32(-1).tobytes()))
    assert cdl.load(folder, verify=False).predict(IMAGE) == ["blue"]
    with pytest.raises(CdlError, match="model.onnx.data: was damaged or changed"):
        cdl.load(folder)


@st.composite
def damaged(draw, raw):
    """Draw a change of some bytes: flipped bits, a piece cut out, or inserted bytes."""
    start = draw(st.integers(0, len(raw) - 1))
    kind = draw(st.sampled_from(["flip", "cut", "insert"]))
    if kind == "flip":
        return raw[:start] + bytes([raw[start] ^ 1 << draw(st.integers(0, 7))]) + raw[start + 1 :]
    if kind == "cut":
        return raw[:start] + raw[draw(st.integers(start + 1, len(raw))) :]
    return raw[:start] + draw(st.binary(min_size=1, max_size=9)) + raw[start:]


@given(data=st.data())
def test_any_change_of_bytes_is_refused_or_changes_no_prediction(student, data):
    name = data.draw(st.sampled_from([*ALL, manifest.MANIFEST]))
    file = student / name
    raw = file.read_bytes()
    file.write_bytes(data.draw(damaged(raw)))
    try:
        try:
            predictions = cdl.load(student).predict_proba(IMAGE)
        except CdlError as error:
            assert name != "card.md" and name in str(error) and str(error).isprintable()
        else:
            assert name in ("card.md", manifest.MANIFEST)
            file.write_bytes(raw)
            assert (cdl.load(student).predict_proba(IMAGE) == predictions).all()
    finally:
        file.write_bytes(raw)


def test_the_manifest_has_all_files_and_the_run_and_verify_reads_it(student, capsys):
    found = read_json(student / "manifest.json")
    assert found["made_from"] == MADE_FROM and set(found["files"]) == set(ALL)
    verify([student])
    assert "4 files compared: all as recorded" in capsys.readouterr().out
    (student / "card.md").write_text("# Published\n")
    (student / ".gitattributes").touch()
    assert cdl.load(student).predict(IMAGE) == ["red"]
    (student / "classes.txt").unlink()
    with pytest.raises(typer.Exit):
        verify([student], as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["checked"] == 4
    states = {fault["path"]: fault["state"] for fault in found["faults"]}
    assert states == {
        str(student / "card.md"): "damaged",
        str(student / "classes.txt"): "missing",
    }


def test_a_folder_without_a_manifest_is_used_with_one_warning(student, caplog):
    (student / "manifest.json").unlink()
    with caplog.at_level(logging.WARNING):
        assert cdl.load(student).predict(IMAGE) == ["red"]
    (record,) = caplog.records
    assert "has no manifest.json" in record.getMessage()
    with pytest.raises(CdlError, match="manifest.json: is missing; export the student"):
        verify([student])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": []}', '{"files": {}}'])
def test_a_manifest_of_another_kind_is_refused_in_a_sentence(student, text):
    (student / "manifest.json").write_text(text)
    with pytest.raises(CdlError, match=r"manifest.json: was damaged or changed \(.*\); export"):
        cdl.load(student)
