"""Deprecated alias of `cdl.methods`; its modules are the modules of `cdl.methods`."""

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
    """Import `cdl.prompts.NAME` as `cdl.methods.NAME`, so that modules load once."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name.startswith("cdl.prompts.") else None

    def create_module(self, spec: ModuleSpec) -> None:
        """Use the default module object, which `exec_module` replaces."""

    def exec_module(self, module: ModuleType) -> None:
        sys.modules[module.__name__] = import_module(
            module.__name__.replace("prompts", "methods", 1)
        )


sys.meta_path.insert(0, _Renamed())
