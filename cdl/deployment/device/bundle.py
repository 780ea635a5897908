"""Write `student.py`: the modules of `device.PARTS` in one file without their imports of cdl."""

import ast
from collections.abc import Iterator
from pathlib import Path

import cdl
from cdl.deployment.device import PARTS

PROGRAM_FILE = "student.py"
_HEAD = '''#!/usr/bin/env python3
"""The program of this student: predict, learn, forget, undo, info.

    python student.py predict PHOTOS --top 3 --json
    python student.py learn FOLDER          one folder of images for each class
    python student.py undo

It needs numpy, Pillow, onnxruntime and safetensors. Made by cdl-workbench {version} under the MIT
licence from the modules named below, which have the tests.
"""
'''


def program() -> str:
    """Return the text of `student.py`."""
    room = Path(cdl.__file__).parent
    parts = [(name, *_without_imports((room / name).read_text(encoding="utf-8"))) for name in PARTS]
    imports = sorted({line for _, lines, _ in parts for line in lines})
    text = [_HEAD.format(version=cdl.__version__), "\n".join(imports)]
    text += [f"\n# --- cdl/{name}\n{body}" for name, _, body in parts]
    return "\n".join(text)


def _without_imports(text: str) -> tuple[list[str], str]:
    """Return the imports of other packages at the top of a module, and its text without imports.

    The docstring becomes a comment.
    """
    tree = ast.parse(text)
    lines = text.splitlines()
    found: list[str] = []
    doc, *nodes = tree.body
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            if not ast.unparse(node).startswith(("import cdl", "from cdl")):
                found += _single(node)
            _blank(lines, node)
    assert doc.end_lineno is not None, "parsed from text"
    comment = [f"# {line}".rstrip() for line in (ast.get_docstring(tree) or "").splitlines()]
    body = "\n".join(lines[doc.end_lineno :]).strip("\n")
    return found, "\n".join([*comment, "", "", body, ""])


def _single(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """Yield one import statement for each imported name."""
    for alias in node.names:
        name = f"{alias.name} as {alias.asname}" if alias.asname else alias.name
        yield (
            f"from {node.module} import {name}"
            if isinstance(node, ast.ImportFrom)
            else f"import {name}"
        )


def _blank(lines: list[str], node: ast.stmt) -> None:
    """Empty the lines of a statement."""
    assert node.end_lineno is not None, "parsed from text"
    for i in range(node.lineno - 1, node.end_lineno):
        lines[i] = ""
