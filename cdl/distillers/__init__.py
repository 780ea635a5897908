"""Distillers: one file each, found in this table and nowhere else."""

from cdl.distillers.base import Distiller
from cdl.distillers.cdl_prompt import CDLPrompt
from cdl.distillers.dkd import DKD
from cdl.distillers.fitnets import FitNets
from cdl.distillers.kd import KD
from cdl.distillers.kd_prompt import KDPrompt
from cdl.distillers.kd_token import KDToken
from cdl.distillers.none import NoDistillation
from cdl.distillers.reviewkd import ReviewKD

DISTILLERS: dict[str, type[Distiller]] = {
    "none": NoDistillation,
    "kd": KD,
    "dkd": DKD,
    "fitnets": FitNets,
    "reviewkd": ReviewKD,
    "kd_token": KDToken,
    "kd_prompt": KDPrompt,
    "cdl_prompt": CDLPrompt,
}

__all__ = ["DISTILLERS", "Distiller"]
