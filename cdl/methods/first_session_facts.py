"""Options and check of a first session, shared by APER and RanPAC."""

from typing import Any

from cdl.methods import NEEDED, Prompting
from cdl.methods.adapter_facts import ADAPTERS
from cdl.runtime.facts import refuse
from cdl.runtime.options import integer

ENTERS = {"adapter": "mlp", "ssf": "affine", "vpt": "tokens"}  # entrance of each module
SESSION: dict[str, Any] = {
    **ADAPTERS,
    "tokens": integer(5, "Tokens per block of the module `vpt`.", minimum=1),
}


def check_module(run: Prompting, option: str) -> None:
    """Raise `Unsuitable` if the backbone lacks the entrance of a module."""
    module = run.options.get(option)
    if module is None:
        return
    entrance = ENTERS[module]
    expected = f"a module that can enter {run.backbone!r}; {module} needs {NEEDED[entrance]}"
    refuse(entrance not in run.shape.entrances, option, module, expected)
