"""Facts by name, other packages' too; no torch is imported until a class is needed."""

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

F = TypeVar("F")


def load(path: str) -> Any:
    """Return what `module:name` names; importing its module is what may take long."""
    module, name = path.split(":")
    return getattr(import_module(module), name)


class Registry(Mapping[str, F]):
    """Facts by name: our own, and behind them those that other packages offer as entry points.

    Both are named as `module:NAME` and loaded when a name is first needed, since their modules
    import the class of the facts.
    """

    def __init__(self, kind: type[F], own: Mapping[str, str], *groups: str) -> None:
        """Set what is known.

        Args:
            kind: class of the facts.
            own: where our own facts are, by name.
            groups: of entry points, each of which names facts of the same kind.
        """
        self._kind, self._own, self._groups = kind, own, groups

    def __getitem__(self, name: str) -> F:
        return self._merged[0][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._merged[0])

    def __len__(self) -> int:
        return len(self._merged[0])

    @property
    def refused(self) -> list[str]:
        """A sentence for each entry point that cannot be taken and was left out."""
        return self._merged[1]

    @cached_property
    def _merged(self) -> tuple[dict[str, F], list[str]]:
        found: dict[str, F] = {name: load(path) for name, path in self._own.items()}
        refused: list[str] = []
        points = [point for group in self._groups for point in entry_points(group=group)]
        for point in sorted(points, key=lambda p: (p.name, p.value)):
            try:
                facts = point.load()
            except Exception as error:  # whatever another package raises while it is imported
                refused.append(f"{_named(point)} cannot be loaded ({error!r}): repair or remove it")
                continue
            if why := _fault(point.name, facts, found, self._kind):
                refused.append(f"{_named(point)} {why}")
            else:
                found[point.name] = facts
        return found, refused


def _fault(name: str, facts: Any, found: Mapping[str, Any], kind: type[Any]) -> str:
    if name in found:
        return "has the name of another one that exists already: give it another name"
    if not re.fullmatch("[a-z][a-z0-9_]{0,49}", name):
        return "needs a name of small letters, digits and _, which begins with a letter"
    if not isinstance(facts, kind):
        return f"names no {kind.__name__}: see CONTRIBUTING.md"
    return ""


def _named(point: EntryPoint) -> str:
    package = f" of the package {point.dist.name}" if point.dist else ""
    return f"{point.group}: the entry point {point.name!r}{package}"
