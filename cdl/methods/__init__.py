"""Prompt methods, found in this table. Those of other packages stand behind it.

A method is two files: `NAME.py` with its module, and `NAME_facts.py` with all that planning knows
of it. No torch is imported here or there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cdl.backbones.shape import BackboneShape
from cdl.runtime.facts import Facts, refuse
from cdl.runtime.registry import Registry, load

if TYPE_CHECKING:
    from cdl.methods.base import PromptMethod


@dataclass(frozen=True)
class Prompting:
    """A run, as the `check` of a method sees it.

    options: of the method, all of them.
    n_tasks: tasks of the stream.
    backbone: name of the backbone that the prompts enter.
    shape: its shape.
    query_shape: shape of the backbone of the query.
    memory: bytes that a job may take.
    """

    options: Mapping[str, Any]
    n_tasks: int
    backbone: str
    shape: BackboneShape
    query_shape: BackboneShape
    memory: float


def check_layers(run: Prompting, option: str = "layers") -> None:
    """Refuse an option that lists blocks of which the backbone does not have all."""
    last, depth = max(run.options.get(option, []), default=0), run.shape.depth
    refuse(last >= depth, option, last, f"blocks 0 to {depth - 1} of {run.backbone!r}")


@dataclass(frozen=True, kw_only=True)
class PromptFacts(Facts):
    """What planning knows of a method, besides what all `Facts` hold.

    needs_query: whether its prompts depend on the query.
    gives_prefixes: whether blocks get prefixes, which a distiller may map.
    adds_to_class_token: whether it changes the class token's key and value, so that there must be
        one.
    merges: whether a task ends with a merge, so that a teacher can be read before or after it.
    counts_tasks: whether its option `pool`, where it has a value, is shared by all tasks, so that
        their number must be known and one more changes all.
    trains: whether it learns by gradient steps; else its head is solved for.
    check: calls `cdl.runtime.facts.refuse` on a run that cannot work.
    """

    needs_query: bool = True
    gives_prefixes: bool = True
    adds_to_class_token: bool = False
    merges: bool = False
    counts_tasks: bool = False
    trains: bool = True
    check: Callable[[Prompting], None] = check_layers

    def load(self) -> "type[PromptMethod]":
        """Import and return the class."""
        kind: type[PromptMethod] = load(self.path)
        return kind


PROMPTS = Registry(
    PromptFacts,
    {
        "l2p": "cdl.methods.l2p_facts:L2P",
        "dual_prompt": "cdl.methods.dual_prompt_facts:DUAL_PROMPT",
        "coda_prompt": "cdl.methods.coda_prompt_facts:CODA_PROMPT",
        "apt": "cdl.methods.apt_facts:APT",
        "one_prompt": "cdl.methods.one_prompt_facts:ONE_PROMPT",
        "vq_prompt": "cdl.methods.vq_prompt_facts:VQ_PROMPT",
        "ranpac": "cdl.methods.ranpac_facts:RANPAC",
        "head_only": "cdl.methods.head_only_facts:HEAD_ONLY",
    },
    "cdl.methods",
    "cdl.prompts",  # the former name of the group
)
