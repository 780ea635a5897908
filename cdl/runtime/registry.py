"""Registry of facts by name, also of other packages. Does not import torch."""

import ast
import hashlib
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache, cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any, TypeVar

F = TypeVar("F")


def load(path: str) -> Any:
    """Import and return the object at `module:name`."""
    module, name = path.split(":")
    return getattr(import_module(module), name)


class Registry(Mapping[str, F]):
    """Facts by name: the built-in ones, then the entry points of other packages.

    Both are given as `module:NAME` and loaded on first use, because their modules import the class
    of the facts.
    """

    def __init__(self, kind: type[F], own: Mapping[str, str], group: str = "") -> None:
        """Store the paths; nothing is imported.

        Args:
            kind: class of the facts.
            own: paths of the built-in facts by name.
            group: group of entry points that provide facts of the same class; empty: none.
        """
        self._kind, self._own, self._group = kind, own, group

    def __getitem__(self, name: str) -> F:
        return self._merged[0][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._merged[0])

    def __len__(self) -> int:
        return len(self._merged[0])

    @property
    def refused(self) -> list[tuple[str, str]]:
        """Name and message of each entry point that is invalid and was skipped."""
        return self._merged[1]

    @cached_property
    def _merged(self) -> tuple[dict[str, F], list[tuple[str, str]]]:
        found: dict[str, F] = {name: load(path) for name, path in self._own.items()}
        refused: list[tuple[str, str]] = []
        points = entry_points(group=self._group)
        for point in sorted(points, key=lambda p: (p.name, p.value)):
            try:
                facts = point.load()
            except Exception as error:  # another package may raise anything when imported
                remove = f" with `pip uninstall {point.dist.name}`" if point.dist else ""
                why = f"cannot be loaded ({error!r}): repair it, or remove it{remove}"
                refused.append((point.name, f"{_describe(point)} {why}"))
                continue
            if why := _problem(point.name, facts, found, self._kind):
                refused.append((point.name, f"{_describe(point)} {why}"))
            else:
                found[point.name] = facts
        return found, refused


def _problem(name: str, facts: Any, found: Mapping[str, Any], kind: type[Any]) -> str:
    if name in found:
        return "has a name that is already in use: choose another name"
    if not re.fullmatch("[a-z][a-z0-9_]{0,49}", name):
        return "has an invalid name: expected lower-case letters, digits and _, with a letter first"
    if not isinstance(facts, kind):
        return f"is not of class {kind.__name__}: see CONTRIBUTING.md"
    module = str(getattr(facts, "path", "")).partition(":")[0]
    if module and not _exists(module):
        return f"names the module {module!r}, which does not exist: add it or change `path`"
    return ""


def _exists(module: str) -> bool:
    """Return whether a module can be found; only its parent packages are imported."""
    if module in sys.modules:
        return True
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # of a parent
        return False


@cache
def source_hash(module: str) -> str:
    """Return the sha256 of a module's source and of what it imports from its own package.

    Nothing is imported but the package itself. Files that are not Python source do not count.
    """
    top, sources, left = module.partition(".")[0], dict[str, bytes](), [module]
    while left:
        name = left.pop()
        path = _source_file(name) if name.partition(".")[0] == top else None
        if path is None or name in sources:
            continue
        sources[name], parent = path.read_bytes(), name.rpartition(".")[0]
        package = name if path.name == "__init__.py" else parent
        left += [parent, *_imported(sources[name], package)]
    digest = hashlib.sha256()
    for name in sorted(sources):
        digest.update(f"{name} {hashlib.sha256(sources[name]).hexdigest()}\n".encode())
    return digest.hexdigest()


def _source_file(module: str) -> Path | None:
    """Return the source of a module, found below its top package; None without one."""
    top, *parts = module.split(".")
    spec = find_spec(top)
    if spec is None:
        return None
    folders = spec.submodule_search_locations or ()
    bases = [Path(folder, *parts) for folder in folders]
    files = [file for base in bases for file in (base / "__init__.py", base.with_suffix(".py"))]
    files += [Path(spec.origin)] if spec.origin and not parts else []
    return next((file for file in files if file.suffix == ".py" and file.is_file()), None)


def _imported(source: bytes, package: str) -> Iterator[str]:
    """Yield the modules, and perhaps other names, that a source file of a package imports."""
    try:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = resolve_name("." * node.level + (node.module or ""), package)
                yield from (base, *(f"{base}.{alias.name}" for alias in node.names))
    except (SyntaxError, ValueError, ImportError):  # it cannot be imported either
        return


def _describe(point: EntryPoint) -> str:
    package = f" of the package {point.dist.name}" if point.dist else ""
    return f"{point.group}: the entry point {point.name!r}{package}"
