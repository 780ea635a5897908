"""The former name of `cdl.methods`, for packages that import it: all modules are those of there."""

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from cdl.methods import *  # noqa: F403

warnings.warn("cdl.prompts is now cdl.methods: import it from there", DeprecationWarning, 2)


class _Renamed(MetaPathFinder, Loader):
    """Finds `cdl.prompts.base` and the others where they are now, so that none is loaded twice."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name.startswith("cdl.prompts.") else None

    def create_module(self, spec: ModuleSpec) -> None:
        """Take the import system's empty module, which `exec_module` replaces."""

    def exec_module(self, module: ModuleType) -> None:
        sys.modules[module.__name__] = import_module(
            module.__name__.replace("prompts", "methods", 1)
        )


sys.meta_path.insert(0, _Renamed())
