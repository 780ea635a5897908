"""Prompt methods: one file each, found in this table and nowhere else."""

from cdl.prompts.base import PromptMethod, Prompts
from cdl.prompts.coda_prompt import CodaPrompt
from cdl.prompts.l2p import L2P

PROMPTS: dict[str, type[PromptMethod]] = {
    "coda_prompt": CodaPrompt,
    "l2p": L2P,
}

__all__ = ["PROMPTS", "PromptMethod", "Prompts"]
