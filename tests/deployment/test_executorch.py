"""An ExecuTorch program predicts like torch; without the package an error names it."""

import importlib.util
import sys

import numpy as np
import pytest
import torch
import toys
from test_graph import model_of

from cdl.data.views import Views
from cdl.deployment.export import export
from cdl.deployment.graph import MOST, ImageGraph, write_executorch
from cdl.deployment.student import CLASSES, PREPROCESSING, PROGRAM, ExportedStudent
from cdl.runtime.errors import CdlError

INSTALLED = importlib.util.find_spec("executorch") is not None


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="the extra executorch is not installed")
def test_a_program_predicts_like_torch_for_images_of_any_size(toy_backbone, monkeypatch, tmp_path):
    monkeypatch.setitem(toys.METHODS, "l2p", toys.METHODS["l2p"] | {"layers": (1,)})
    graph = ImageGraph(model_of(toy_backbone, "l2p", "kd_prompt"), Views(8))
    write_executorch(graph, tmp_path / PROGRAM)
    (tmp_path / CLASSES).write_text("a\nb\nc\nd\n")
    (tmp_path / PREPROCESSING).write_text('{"input": {"most": [32, 512, 512]}}')
    student = ExportedStudent(tmp_path)
    rng = np.random.default_rng(0)
    for shape in ((1, 8, 8), (3, 21, 13), (2, 7, 30)):
        pixels = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
        expected = graph(torch.from_numpy(pixels)).detach()
        np.testing.assert_allclose(student.logits(pixels), expected, atol=2e-5)
    assert student.predict([pixels[0], pixels[1]])[0] in "abcd"
    with pytest.raises(CdlError, match=r"images: number, height, width are \(1, 513, 8\)"):
        student.preprocess(np.zeros((MOST[1] + 1, 8, 3), np.uint8))


def test_a_missing_package_is_reported_by_name(toy_backbone, monkeypatch, tmp_path):
    for name in [m for m in sys.modules if m.split(".")[0] == "executorch"] + ["executorch"]:
        monkeypatch.setitem(sys.modules, name, None)
    graph = ImageGraph(model_of(toy_backbone, "head_only", "none"), Views(8))
    with pytest.raises(CdlError, match=r"pip install 'cdl-workbench\[executorch\]'"):
        write_executorch(graph, tmp_path / PROGRAM)
    (tmp_path / CLASSES).write_text("a\n")
    (tmp_path / PREPROCESSING).write_text("{}")
    (tmp_path / PROGRAM).touch()
    with pytest.raises(CdlError, match="needs the package executorch, which is not installed"):
        ExportedStudent(tmp_path)
    with pytest.raises(CdlError, match="--int8 static: only valid with --format onnx"):
        export(tmp_path, tmp_path / "out", int8="static", executorch=True)
