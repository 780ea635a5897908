"""Prompt methods: one file each, found in this table. Those of other packages stand behind it.

No torch is imported.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cdl.runtime.registry import Registry, load

if TYPE_CHECKING:
    from cdl.prompts.base import PromptMethod


@dataclass(frozen=True)
class PromptFacts:
    """What planning knows of a method, stated once.

    path: `module:Class`.
    needs_query: whether its prompts depend on the query.
    gives_prefixes: whether blocks get prefixes, which a distiller may map.
    adds_to_class_token: whether it changes the class token's key and value, so that there must be
        one.
    merges: whether a task ends with a merge, so that a teacher can be read before or after it.
    counts_tasks: whether its option `pool`, where it has a value, is shared by all tasks, so that
        their number must be known and one more changes all.
    trains: whether it learns by gradient steps; else its head is solved for.
    options: fields of its block in the schema, by name; None for those here, whose schema has them.
    description: of the block, with the paper; only beside `options`.
    numerics: raised whenever its numbers change and nobody else's; by its package, if it has one.
    """

    path: str
    needs_query: bool = True
    gives_prefixes: bool = True
    adds_to_class_token: bool = False
    merges: bool = False
    counts_tasks: bool = False
    trains: bool = True
    options: Mapping[str, Any] | None = None
    description: str = ""
    numerics: int = 1

    def load(self) -> "type[PromptMethod]":
        """Import and return the class."""
        kind: type[PromptMethod] = load(self.path)
        return kind


_OWN = {
    "l2p": PromptFacts("cdl.prompts.l2p:L2P"),
    "dual_prompt": PromptFacts("cdl.prompts.dual_prompt:DualPrompt"),
    "coda_prompt": PromptFacts("cdl.prompts.coda_prompt:CodaPrompt", counts_tasks=True),
    "apt": PromptFacts(
        "cdl.prompts.apt:APT",
        needs_query=False,
        gives_prefixes=False,
        adds_to_class_token=True,
        merges=True,
    ),
    "one_prompt": PromptFacts("cdl.prompts.one_prompt:OnePrompt", needs_query=False),
    "vq_prompt": PromptFacts("cdl.prompts.vq_prompt:VQPrompt"),
    "ranpac": PromptFacts(
        "cdl.prompts.ranpac:RanPAC",
        needs_query=False,
        gives_prefixes=False,
        trains=False,
        numerics=3,  # 1: ridges judged by the larger of two equal systems; 2: of any size
    ),
    "head_only": PromptFacts(
        "cdl.prompts.head_only:HeadOnly", needs_query=False, gives_prefixes=False
    ),
}
PROMPTS = Registry(_OWN, "cdl.prompts")
