"""Distillers: one file each, found in this table and nowhere else."""

from cdl.distillers.base import Distiller
from cdl.distillers.cdl_prompt import CDLPrompt
from cdl.distillers.kd import KD
from cdl.distillers.kd_prompt import KDPrompt
from cdl.distillers.none import NoDistillation

DISTILLERS: dict[str, type[Distiller]] = {
    "none": NoDistillation,
    "kd": KD,
    "kd_prompt": KDPrompt,
    "cdl_prompt": CDLPrompt,
}

__all__ = ["DISTILLERS", "Distiller"]
