"""Prompt methods: one file each, found in this table and nowhere else. No torch is imported."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cdl.runtime.registry import load

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
    trains: whether it learns by gradient steps; else its head is solved for.
    """

    path: str
    needs_query: bool = True
    gives_prefixes: bool = True
    adds_to_class_token: bool = False
    merges: bool = False
    trains: bool = True

    def load(self) -> "type[PromptMethod]":
        """Import and return the class."""
        kind: type[PromptMethod] = load(self.path)
        return kind


PROMPTS = {
    "l2p": PromptFacts("cdl.prompts.l2p:L2P"),
    "dual_prompt": PromptFacts("cdl.prompts.dual_prompt:DualPrompt"),
    "coda_prompt": PromptFacts("cdl.prompts.coda_prompt:CodaPrompt"),
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
        "cdl.prompts.ranpac:RanPAC", needs_query=False, gives_prefixes=False, trains=False
    ),
    "head_only": PromptFacts(
        "cdl.prompts.head_only:HeadOnly", needs_query=False, gives_prefixes=False
    ),
}
