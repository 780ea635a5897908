"""The tutorial does what it says, and a notebook shows and interrupts a run."""

import re
from pathlib import Path

import pytest
from jupyter_client.manager import start_new_kernel

DOCS = Path(__file__).parents[1] / "docs"


def kinds(notebook):
    """What kinds of output every cell has; what they say differs between machines."""
    cells = [cell.get("outputs", ()) for cell in notebook.cells]
    return [[(o.output_type, sorted(o.get("data", ()))) for o in outputs] for outputs in cells]


def counts(notebook):
    """The numbers of test examples that the outputs name, which are those of any machine."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return re.findall(r"(\d+) test (?:examples|images)", str(outputs))


@pytest.mark.slow
@pytest.mark.parametrize("fewer", [True, pytest.param(False, marks=pytest.mark.nightly)])
def test_the_tutorial_runs_from_images_to_an_exported_student(fewer, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    monkeypatch.setenv("PYTHONPATH", str(DOCS.parent))
    import tutorial

    committed = tutorial.nbformat.read(tutorial.NOTEBOOK, as_version=4)
    text = tutorial.NOTEBOOK.read_text()
    for images, less in (("own[:120]", "own[:40]"), ("own[120:130]", "own[40:50]")):
        assert images in text
        text = text.replace(images, less) if fewer else text
    monkeypatch.setattr(tutorial, "NOTEBOOK", tmp_path / "fewer.ipynb")
    tutorial.NOTEBOOK.write_text(text)
    executed = tutorial.execute(tmp_path)
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    assert len(code) == 10 and "80 of 80 answers are the same" in code[7].outputs[0].text
    assert fewer or counts(executed) == counts(committed), "`make tutorial`"
    assert re.search(r"learnt camel, lamp.*held out", code[8].outputs[0].text, re.DOTALL)
    assert "<Student of 6 classes" in code[9].outputs[0].data["text/plain"]
    assert kinds(executed) == kinds(committed), "`make tutorial` writes the outputs anew"
    assert Path(tmp_path, "student", "model.onnx").is_file()


@pytest.mark.slow
def test_a_notebook_shows_a_bar_and_interrupts_a_run_which_can_go_on(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(DOCS.parent))
    files = [str(DOCS.parent / "config" / name) for name in ("digits.yaml", "test/tiny.yaml")]
    overrides = {"grid.distillers": ["none"], "grid.methods": ["simple_cil"]}
    manager, client = start_new_kernel(cwd=tmp_path, kernel_name="python3")
    try:
        client.execute(f"import cdl\ncdl.run(*{files}, {overrides}, cores=1)", stop_on_error=False)
        said, failed = "", None
        while failed is None:
            message = client.get_iopub_msg(timeout=240)
            kind, content = message["msg_type"], message["content"]
            if kind == "stream" and content["name"] == "stderr":
                if "jobs" not in said and "jobs" in said + content["text"]:
                    manager.interrupt_kernel()
                said += content["text"]
            elif kind == "error":
                failed = content["ename"]
        assert failed == "KeyboardInterrupt", failed
        assert re.search(r"\r\[[#.]{20}\] \d+/\d+ jobs", said) and "\x1b" not in said
        assert "interrupted; the results of finished jobs are kept" in said
        again = f"print(len(cdl.run(*{files}, {overrides}, cores=1)))\n"
        again += f"print(cdl.status(*{files}, {overrides}))"
        printed = []
        reply = client.execute_interactive(
            again,
            timeout=240,
            output_hook=lambda message: printed.append(message["content"].get("text", "")),
        )
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert reply["content"]["status"] == "ok", reply
    assert "missing  0 cells" in "".join(printed)
