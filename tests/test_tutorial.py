"""The tutorial does what it says, from images to the answers of an exported student."""

from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


def kinds(notebook):
    """What kinds of output every cell has; what they say differs between machines."""
    cells = [cell.get("outputs", ()) for cell in notebook.cells]
    return [[(o.output_type, sorted(o.get("data", ()))) for o in outputs] for outputs in cells]


@pytest.mark.slow
def test_the_tutorial_runs_from_images_to_an_exported_student(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    monkeypatch.setenv("PYTHONPATH", str(DOCS.parent))
    import tutorial

    executed = tutorial.execute(tmp_path)
    assert executed.cells[-2].outputs[-1].text == "6 of 6 answers are the same"
    committed = tutorial.nbformat.read(tutorial.NOTEBOOK, as_version=4)
    assert kinds(executed) == kinds(committed), "`make tutorial` writes the outputs anew"
    assert Path(tmp_path, "student", "model.onnx").is_file()
