"""Write `student.py`: what a student needs of the modules of `cdl.device`, in one file.

Functions and classes that it does not use are left out, and so are abstract methods and the
memories of other kinds; of docstrings the first line is kept: the modules themselves have the
whole text, and the tests.
"""

import ast
from collections import defaultdict
from functools import cache
from importlib.resources import files

import cdl
from cdl.data.modalities import ModalityFacts
from cdl.device import PARTS
from cdl.device.items import Items
from cdl.device.memory import Memory
from cdl.runtime.registry import load

_ROOTS = {"Student", "main"}
_HEAD = '''#!/usr/bin/env python3
"""The program of this student: predict, learn, forget, undo, info, costs.

    python student.py predict {argument} --top 3 --json
    python student.py learn {path}          {layout}
    python student.py undo

It needs numpy, onnxruntime, safetensors and {packages}. Made by cdl-workbench {version} under
the MIT licence from the modules named below, which have the tests.
"""

'''


_TAIL = """if __name__ == "__main__":
    sys.exit(main(Student))
"""


def program(facts: ModalityFacts, kind: str) -> str:
    """Return the text of `student.py` for a modality and a kind of memory, see `cdl.device.memory`.

    A student without a memory has the program of any kind, whose `learn` says that there is none.
    """
    return _program(facts.device, (*PARTS, *facts.device_parts), kind)


@cache
def _program(device: str, parts: tuple[str, ...], kind: str) -> str:
    room, takes = files("cdl") / "device", load(device).takes
    texts = {name: (room / f"{name}.py").read_text(encoding="utf-8") for name in parts}
    nodes = [node for text in texts.values() for node in ast.parse(text).body]
    used = _used(nodes, {*_ROOTS, Memory.kinds[kind].__name__})
    found = [_part(name, text, used) for name, text in texts.items()]
    head = _head(takes) + _imports(nodes, used)
    return "\n\n\n".join([head, *filter(None, found), _TAIL])


def _head(takes: type[Items]) -> str:
    about = {name: getattr(takes, name) for name in ("argument", "path", "layout")}
    return _HEAD.format(version=cdl.__version__, packages=", ".join(takes.packages), **about)


def _defined(node: ast.stmt) -> set[str]:
    """Return the names that a statement at the top of a module defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else []
    return {
        name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)
    }


def _used(nodes: list[ast.stmt], roots: set[str]) -> set[str]:
    """Return all names that the program uses, beginning with the roots."""
    used, new = set[str](), roots
    while new - used:
        used |= new
        needed = [node for node in nodes if _defined(node) & used]
        new = {n.id for node in needed for n in ast.walk(node) if isinstance(n, ast.Name)}
    return used


def _imports(nodes: list[ast.stmt], used: set[str]) -> str:
    """Return the imports of used names from other packages, one statement for each module."""
    found = defaultdict[str, set[str]](set)
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                start = f"from {node.module} " if isinstance(node, ast.ImportFrom) else ""
                name, line = ast.unparse(alias), f"{start}import "
                if (alias.asname or alias.name.split(".")[0]) in used:
                    found[line if start else line + name].add(name if start else "")
    lines = (line + ", ".join(sorted(names)) for line, names in found.items())
    return "\n".join(sorted(line for line in lines if not line.startswith("from cdl")))


def _part(name: str, text: str, used: set[str]) -> str:
    """Return the used statements of a module under its docstring, which becomes a comment.

    Empty if none is used.
    """
    lines, tree = _without_details(text), ast.parse(text)
    first, *_ = (ast.get_docstring(tree) or "").splitlines()
    found, before, short = list[str](), tree.body[0].end_lineno, False
    for node in tree.body[1:]:
        if _defined(node) & used:
            again, short = short, isinstance(node, ast.Assign | ast.AnnAssign)
            own = [line for line in lines[before : node.end_lineno] if line is not None]
            found += ([] if short and again else [""]) + ([] if short else [""])
            found += "\n".join(own).strip("\n").splitlines()
        before = node.end_lineno
    return "\n".join([f"# --- cdl/device/{name}.py", f"# {first}", *found] if found else [])


def _without_details(text: str) -> list[str | None]:
    """Return the lines of a module; None for lines of docstrings after their first one."""
    lines: list[str | None] = list(text.splitlines())
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            doc = node.body[0]
            assert doc.end_lineno is not None, "parsed from text"
            first = lines[doc.lineno - 1]
            if doc.end_lineno > doc.lineno and first is not None:
                lines[doc.lineno - 1] = first + '"""'
                lines[doc.lineno : doc.end_lineno] = [None] * (doc.end_lineno - doc.lineno)
            if isinstance(node, ast.FunctionDef) and _is_abstract(node):
                above = node.decorator_list[0].lineno - 2  # an empty line
                lines[above : doc.end_lineno] = [None] * (doc.end_lineno - above)
    return lines


def _is_abstract(node: ast.FunctionDef) -> bool:
    """Return whether a method is abstract; the class `Student` has all."""
    return "abstractmethod" in map(ast.unparse, node.decorator_list)
