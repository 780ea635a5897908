"""Prompt methods: one file each, found in this table and nowhere else."""

from cdl.prompts.apt import APT
from cdl.prompts.base import PromptMethod, Prompts, PromptSetting
from cdl.prompts.coda_prompt import CodaPrompt
from cdl.prompts.dual_prompt import DualPrompt
from cdl.prompts.head_only import HeadOnly
from cdl.prompts.l2p import L2P

PROMPTS: dict[str, type[PromptMethod]] = {
    "l2p": L2P,
    "dual_prompt": DualPrompt,
    "coda_prompt": CodaPrompt,
    "apt": APT,
    "head_only": HeadOnly,
}

__all__ = ["PROMPTS", "PromptMethod", "PromptSetting", "Prompts"]
