"""Classes by name, found without importing torch until one is needed."""

from importlib import import_module
from typing import Any


def load(path: str) -> Any:
    """Return what `module:name` names; importing its module is what may take long."""
    module, name = path.split(":")
    return getattr(import_module(module), name)
