"""Execute the tutorial; as a program, write its outputs into `tutorial.ipynb`.

Progress (stderr), colours and times are left out.
"""

import os
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).with_name("tutorial.ipynb")


def execute(folder: Path) -> nbformat.NotebookNode:
    """Run all cells in an empty folder, with this interpreter and its commands.

    Args:
        folder: where the cells read and write their files.

    Returns:
        The notebook with its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    commands = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    client = NotebookClient(
        notebook,
        timeout=1800,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env=os.environ | {"PATH": commands})
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = tidy(cell.outputs)
    return notebook


def tidy(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Return the outputs of a cell, with all printed text in one stream and without colours."""
    printed = "".join(o.text for o in outputs if o.get("name") == "stdout")
    text = re.sub(r"\x1b\[[0-9;]*m", "", printed)
    text = "\n".join(line.rstrip() for line in text.strip("\n").splitlines())
    stream = [nbformat.v4.new_output("stream", name="stdout", text=text)] if text else []
    return stream + [o for o in outputs if o.output_type != "stream"]


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        executed = execute(Path(folder))
    executed.metadata = {"kernelspec": executed.metadata["kernelspec"]}
    nbformat.write(executed, NOTEBOOK)
