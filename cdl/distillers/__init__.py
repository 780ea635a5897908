"""Distillers: one file each, found in this table. Those of other packages stand behind it.

No torch is imported.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from cdl.runtime.registry import Registry, load

if TYPE_CHECKING:
    from cdl.distillers.base import Distiller


@dataclass(frozen=True)
class DistillerFacts:
    """What planning knows of a distiller, stated once.

    path: `module:Class`.
    compares: which of both models' last block outputs it compares; `none` reads logits alone.
    counts_tasks: as in `cdl.prompts.PromptFacts`.
    maps_prompts: whether it reads the teacher's prompts, also at prediction.
    options: fields of its block in the schema, by name; None for those here, whose schema has them.
    description: of the block, with the paper; only beside `options`.
    numerics: raised whenever its numbers change and nobody else's; by its package, if it has one.
    """

    path: str
    compares: Literal["none", "last", "all"] = "none"
    maps_prompts: bool = False
    counts_tasks: bool = False
    options: Mapping[str, Any] | None = None
    description: str = ""
    numerics: int = 1

    def blocks(self, depth: int) -> int:
        """Return how many last blocks of both models it compares, for a student of `depth`."""
        return {"none": 0, "last": 1, "all": depth}[self.compares]

    def load(self) -> "type[Distiller]":
        """Import and return the class."""
        kind: type[Distiller] = load(self.path)
        return kind


_OWN = {
    "none": DistillerFacts("cdl.distillers.none:NoDistillation"),
    "kd": DistillerFacts("cdl.distillers.kd:KD"),
    "dkd": DistillerFacts("cdl.distillers.dkd:DKD"),
    "dist": DistillerFacts("cdl.distillers.dist:DIST"),
    "fitnets": DistillerFacts("cdl.distillers.fitnets:FitNets", compares="last"),
    "cls_feature": DistillerFacts("cdl.distillers.cls_feature:ClsFeature", compares="last"),
    "reviewkd": DistillerFacts("cdl.distillers.reviewkd:ReviewKD", compares="all"),
    "kd_token": DistillerFacts("cdl.distillers.kd_token:KDToken"),
    "kd_prompt": DistillerFacts("cdl.distillers.kd_prompt:KDPrompt"),
    "cdl_prompt": DistillerFacts(
        "cdl.distillers.cdl_prompt:CDLPrompt", maps_prompts=True, counts_tasks=True
    ),
}
DISTILLERS = Registry(_OWN, "cdl.distillers")
