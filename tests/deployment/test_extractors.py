"""Students on backbones of which only features are read: export, int8, learning on, the page."""

import numpy as np
import onnx
import pytest
from extractors import FAMILIES, finish
from learners import draw_images

import cdl
from cdl.deployment.demo import site
from cdl.deployment.export import export
from cdl.device.images import Student
from cdl.runtime.errors import CdlError


@pytest.fixture
def student(request, lab, inputs, tmp_path):
    """The folder of a finished student of a method on random weights of a family, or of a file."""
    return finish(lab, inputs, tmp_path / "own", *request.param)


def of(families, method="ranpac"):
    return pytest.mark.parametrize(
        "student", [(family, method) for family in families], indirect=True, ids=map(str, families)
    )


def check(student, tmp_path, kinds=(None, "dynamic")):
    """Compare exports of kinds of int8 with torch, and let each learn two classes.

    Return the result of the last export.
    """
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    expected = cdl.load(student).predict_proba(images)
    for weights in kinds:
        folder = tmp_path / (weights or "fp32")
        made = export(student, folder, int8=weights)
        found = cdl.load(folder).predict_proba(images)
        assert made.parity.holds  # of the graph before its weights are rounded
        if weights is None:
            np.testing.assert_allclose(found, expected, atol=1e-4)
        assert np.isfinite(found).all()
        device = Student(folder)
        device.learn({name: list(draw_images(name, 8, 0, side=8)) for name in ("black", "white")})
        named = [*draw_images("black", 4, 1, side=8), *draw_images("white", 4, 1, side=8)]
        assert device.predict(named) == ["black"] * 4 + ["white"] * 4
    return made


@pytest.mark.slow
@of(["cnn"])
def test_a_convolutional_student_is_exported_learns_on_and_has_a_page(
    student, tmp_path, monkeypatch
):
    check(student, tmp_path, [None])
    monkeypatch.setattr("cdl.deployment.demo.runtime_files", lambda source: [])
    page = site(tmp_path / "fp32")
    assert {"student/model.onnx", "student/versions/1/memory.safetensors"} <= page.keys()
    with pytest.raises(CdlError, match="only available for backbones that can be prompted"):
        export(student, tmp_path / "timm", timm=True)
    assert not (tmp_path / "timm").exists()


@pytest.mark.slow
@of(["cnn"], "simple_cil")
def test_class_means_of_a_convolutional_student_in_int8_are_learnt_on(student, tmp_path):
    check(student, tmp_path, ["dynamic"])


@pytest.mark.slow
@of([{"opset": 13}, {"opset": 22, "licence": "MIT"}])
def test_the_network_of_a_file_is_in_the_export_and_learns_on(student, tmp_path):
    costs = check(student, tmp_path).costs
    made = onnx.load(tmp_path / "fp32" / "model.onnx")
    assert {node.domain for node in made.graph.node} == {""} and len(made.graph.input) == 1
    assert costs.parameters["backbone"] == 4 * 27 + 64 * 16 + 16
    multiplied = 4 * 4 * 4 * 27 + 64 * 16 + 16 * 32 + 32 * 10  # with the head of ranpac
    assert costs.gflops * 1e9 == pytest.approx(2 * multiplied)
    named = made.opset_import[0].version == 22
    licence = "MIT" if named else "not recorded; clarify it"
    assert f": {licence}" in (tmp_path / "fp32" / "card.md").read_text()
    for wrong in ("executorch", "timm"):
        with pytest.raises(CdlError, match=f"--format {wrong}: is .* use --format onnx"):
            export(student, tmp_path / wrong, **{wrong: True})


@pytest.mark.nightly
@of(FAMILIES)
def test_every_family_is_exported_and_learns_on(student, tmp_path):
    check(student, tmp_path)
