"""The tutorial does what it says, from images to the answers of an exported student."""

import re
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


def outputs(notebook):
    """What every cell put out, without numbers, which differ between machines."""
    return [[shape(output) for output in cell.get("outputs", ())] for cell in notebook.cells]


def shape(output):
    if output.output_type != "stream":
        return sorted(output.data)
    return [re.sub(r"\d+", "0", line).split()[:1] for line in output.text.splitlines()]


@pytest.mark.slow
def test_the_tutorial_runs_from_images_to_an_exported_student(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    monkeypatch.setenv("PYTHONPATH", str(DOCS.parent))
    import tutorial

    executed = tutorial.execute(tmp_path)
    assert executed.cells[-2].outputs[-1].text == "6 of 6 answers are the same"
    committed = tutorial.nbformat.read(tutorial.NOTEBOOK, as_version=4)
    assert outputs(executed) == outputs(committed), "make tutorial writes the outputs anew"
    assert Path(tmp_path, "student", "model.onnx").is_file()
    del sys.modules["tutorial"]
