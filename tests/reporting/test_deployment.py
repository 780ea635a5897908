"""Markdown table and figure of deployment."""

from types import SimpleNamespace

import pytest
from study import make_deployment, make_study

from cdl.reporting.deployment import on_page, write_deployment
from cdl.runtime.artifacts import check_files
from cdl.runtime.errors import CdlError


@pytest.fixture
def deployment(tmp_path):
    results, *_ = make_study(tmp_path / "runs", methods=("l2p",), seeds=(0,))
    return make_deployment(tmp_path, results)


def test_table_and_figure_name_the_machine_and_every_student(deployment, tmp_path):
    out = SimpleNamespace(
        md=tmp_path / "deployment.md",
        figures=deployment.deployment_figures,
        record=tmp_path / "figures.json",
    )
    write_deployment(deployment, out, ["digits"])
    check_files(out.record, out.md, *out.figures)
    text = out.md.read_text()
    assert "Machine: Abacus 1, 3 cores, Wood; onnxruntime 1; load before the first turn 0.5" in text
    assert text.count("| fp32 ") == text.count("| int8 ") == 4
    assert "backbone 1,000, prompts 1,000, head 1,000" in text and "distiller 0" not in text
    assert "kd" in text and "(teacher)" in text
    shown = on_page(deployment)
    assert [row["weights"] for row in shown["rows"]] == ["fp32", "int8"] * 4
    assert shown["rows"][0]["forgetting"] == "1.50" and shown["rows"][1]["forgetting"] == "-"
    assert len(shown["figures"]) == 1 and on_page(SimpleNamespace()) is None


def test_a_changed_table_is_refused(deployment):
    with open(deployment.deployment, "a") as file:
        file.write("\n")
    with pytest.raises(CdlError, match="deployment.csv has sha256"):
        on_page(deployment)
