"""Distillers: one file each, found in this table and nowhere else. No torch is imported."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cdl.runtime.registry import load

if TYPE_CHECKING:
    from cdl.distillers.base import Distiller


@dataclass(frozen=True)
class DistillerFacts:
    """What planning knows of a distiller, stated once.

    path: `module:Class`.
    compares: which of both models' last block outputs it compares; `none` reads logits alone.
    maps_prompts: whether it reads the teacher's prompts, also at prediction.
    """

    path: str
    compares: Literal["none", "last", "all"] = "none"
    maps_prompts: bool = False

    def blocks(self, depth: int) -> int:
        """Return how many last blocks of both models it compares, for a student of `depth`."""
        return {"none": 0, "last": 1, "all": depth}[self.compares]

    def load(self) -> "type[Distiller]":
        """Import and return the class."""
        kind: type[Distiller] = load(self.path)
        return kind


DISTILLERS = {
    "none": DistillerFacts("cdl.distillers.none:NoDistillation"),
    "kd": DistillerFacts("cdl.distillers.kd:KD"),
    "dkd": DistillerFacts("cdl.distillers.dkd:DKD"),
    "dist": DistillerFacts("cdl.distillers.dist:DIST"),
    "fitnets": DistillerFacts("cdl.distillers.fitnets:FitNets", compares="last"),
    "cls_feature": DistillerFacts("cdl.distillers.cls_feature:ClsFeature", compares="last"),
    "reviewkd": DistillerFacts("cdl.distillers.reviewkd:ReviewKD", compares="all"),
    "kd_token": DistillerFacts("cdl.distillers.kd_token:KDToken"),
    "kd_prompt": DistillerFacts("cdl.distillers.kd_prompt:KDPrompt"),
    "cdl_prompt": DistillerFacts("cdl.distillers.cdl_prompt:CDLPrompt", maps_prompts=True),
}
